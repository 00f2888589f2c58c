"""The maps of the program, each readable top to bottom: audit, screening, benchmark, demo.

audit.py           `kdaudit run`
screen.py          `kdaudit screen`
stages/            what both are made of
report.py          `kdaudit report RUN_DIR`; trainings.py the same of several runs
compare.py         `kdaudit compare`
accept.py          `kdaudit accept`
canaries.py        `kdaudit canaries`
bench.py           `kdaudit bench`
demo/              `kdaudit demo`
api.py             the public API; written.py what its functions give
"""
