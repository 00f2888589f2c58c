"""The HTML reports, made from results.json and leaks.parquet alone: `render.render_pages`.

    render.py              run directory -> report.html, report.public.html
    view.py                results -> all that the report's template needs
    public.py              what the public page leaves out of the private one

The parts of the report, in its order:

    verdict.py             the gate's verdict, its sentence and its checks
    figures.py             the key figures (key_figure.py: their shape); predictor_figure.py one of them
    overlap.py             which models memorize the same examples
    predictor_recall.py    what the predictor would have caught
    other_attacks.py, membership.py, canaries.py   what attacks other than exact greedy extraction found
    reviewers.py           what was measured, by the questions of EDPB Opinion 28/2024
    reviewed_attacks.py    what attacks found of students, in its sentences
    accepted.py            leaks that the gate disregards
    personal_data_counts.py   leaks by what they seem to hold
    leak_cards.py          the leaks that are shown

Other pages:

    screening.py           a screening; screening_words.py its sentences, tradeoff.py its curve
    compared.py            two audits; compared_words.py its sentences
    trainings.py           several audits of one corpus

    charts.py, entropy_charts.py, predictor_charts.py   what charts draw; scales.py their axes
    formatting.py          numbers in words
    missing_reasons.py     why one is missing
    asked.py               what models were given and had to generate
    shown_text.py          text of others made visible and cut
"""
