"""An audit's findings in the formats of other systems, without training text unless the owner asks for it.

    writing.py       one call: a run directory -> one file outside it
    findings.py      leaks, worst first, each with a fingerprint; fingerprints.py its key and its rule
    sarif.py         leaks for code scanning
    junit.py         the gate's checks as test cases
    spreadsheet.py   leaks as CSV
    trackers/        figures and the public page for experiment trackers

What is public is made from `PublicResults`, which cannot hold document ids or paths.
"""
