"""The HTML reports, made from results.json and leaks.parquet alone: `render.render_pages`.

render.py        run directory -> report.html, report.public.html
view.py          results -> all that the report's template needs
public.py        what the public page leaves out of the private one
shown_text.py    text of others made visible and cut
screening.py     the pages of a screening, tradeoff.py their curve; trainings.py the page of several trainings
verdict.py, figures.py, overlap.py, leak_cards.py   the parts of the report, in its order
compared.py      the pages of two audits compared; compared_words.py their sentences
reviewers.py     what was measured, by the questions of EDPB Opinion 28/2024
reviewed_attacks.py   what attacks found of students, in its sentences
accepted.py      the leaks that the gate disregards
charts.py, entropy_charts.py, predictor_charts.py   what charts draw; scales.py their axes
formatting.py    numbers in words; missing_reasons.py why one is missing
"""
