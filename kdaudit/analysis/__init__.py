"""Evaluation of results: inheritance and its intervals, the gate, and what leaks hold.

inheritance.py     what a student inherits; inheritance_notes.py why a figure of it is not available
exposed.py         the same of all that another attack exposes
excess.py          inheritance beyond what chance gives; unlike.py baselines that do not measure chance
pretraining.py     what the untouched base model completes too
gate.py            each limit judged for each student

intervals.py       intervals and tests where the unit is the example
by_document.py     intervals where it is the document
strata.py          shares estimated from a sample

membership.py      membership scores, and what they are set against
roc.py             how well a score tells members from non-members
blind.py           how well text alone does
exposure.py        exposure of canaries

leaks.py, flagged.py   what leaks.parquet and flagged.parquet hold
leak_counts.py     counts over all leaks
severity.py        the order in which leaks are looked at
personal_data.py   tags for what a leak seems to hold
accepted.py        which leaks accepted.yaml names

compared.py        two runs: how leaks and rates changed
joined.py          the examples that both have in common
paired.py          outcomes on these
trainings.py       several runs; spread.py a figure over them
"""
