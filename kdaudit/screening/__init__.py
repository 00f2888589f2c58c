"""Screening: a corpus scored before distillation, and written again without its risky examples.

run.py       the screening, top to bottom
flagging.py  what is flagged, and why: risk.parquet, flagged.parquet
keys.py      which windows of a corpus are examples of a given kind, wherever they stand
marks.py     documents -> where flagged windows stand in them
sinks.py     rows -> kept/part-NNNNN.parquet or .jsonl
kept.py      all of that: `write_kept`
record.py    the schema of screen.json
words.py     the record in sentences
report.py    screen.json and flagged.parquet -> screen.html, screen.public.html
"""
