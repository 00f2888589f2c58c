"""The corpus written again without its risky examples: what comes after the screening's flags.

    spans.py          where flagged windows stand in documents
    chats.py          what stays of a conversation in which answers are flagged
    window_hashes.py  which windows of a corpus are occurrences of some examples
    recurrences.py    where the suffixes of flagged examples stand besides
    schemas.py        Arrow types of a corpus that declares none
    writers.py        rows -> kept/part-NNNNN.parquet or .jsonl
    kept.py           all of that: `write_kept`

The screening itself, top to bottom, is `kdaudit.pipelines.screen`.
"""
