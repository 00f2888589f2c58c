"""The stages of an audit and of a screening, each a function over the run directory.

    preflight.py    what is checked before anything costs time
    opening.py      configuration -> models and texts found, an open run
    work.py         what every stage is given
    examples.py     corpus -> distinct examples, and where else their suffixes stand
    engine_check.py  model, reference -> whether the engine says what the model says
    extracting.py   models -> matched tokens of every example; what they say after leaked prefixes
    likelihoods.py  models -> perplexity of the holdout, entropy against log-probability
    scoring.py      teacher and baseline -> features of every example
    predicting.py   features and labels -> predictor, risk of every example

A stage reads the files of those before it, writes its own, and does nothing where an earlier call
finished it.
"""
