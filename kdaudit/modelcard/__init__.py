"""The audit in a model card: card.md of a run, and the section and metadata that `kdaudit card` writes.

    section.py       the audit in Markdown: card.md, or a student's section
    student.py       which student a card is about, and the results that concern it
    metadata.py      evaluation results in the form of huggingface_hub
    front_matter.py  puts them into a card's YAML and keeps every other byte
    document.py      a whole card: front matter, and the section between its markers
    hub.py           the card of a repository, and the commit that uploads it with the public report
    lookalike.py     refuses headers that the Hub does not read as such
    writing.py       `kdaudit card`

All of it is public: it is made from results whose private parts were removed.
"""

from kdaudit.modelcard.section import card_text

__all__ = ["card_text"]
