"""The stages of an audit and of a screening, each a function over the run directory.

    opening.py       configuration -> models and texts found, an open run
    preflight.py     what is checked before anything costs time
    machine.py       whether the machine can run the models as they are asked for
    fit.py           where examples are cut for each model; whether its context suffices
    tokenizer_notes.py  what readers should know where tokenizers differ
    engine_options.py  how an engine loads a model
    endpoints.py     models behind endpoints, asked before anything costs time
    inputs.py        what a run is made from
    work.py          what every stage is given
    shard_notes.py   what a shard says of how it was made

    examples.py      corpus -> distinct examples, and where else their suffixes stand
    canaries.py      canaries as examples, and how often training data hold each
    answers.py       what there is to say of prompts and answers beside their counts
    readings.py      examples as a model with a tokenizer of its own reads them
    engine_check.py  model, reference -> whether the engine says what the model says
    extracting.py    models -> what each attack finds; what they say after leaked prefixes
    attacked.py      what attacks wrote, and how it is read back
    estimate.py      how long the models will take
    feature_sample.py  which examples features are taken of
    features.py      teacher and baseline -> features of these
    likelihoods.py   models -> perplexity of the holdout, entropy against log-probability
    nearness.py      baselines -> how near each is to what any model memorizes
    scores.py        models -> what each makes of every token of a sample's suffixes
    scorers.py       a model in transformers, in as many processes as the run has room for
    membership.py    scores of corpus and holdout -> how well they tell which was trained on
    overlap.py       holdout and corpus -> which examples stand in both
    predicting.py    features and labels -> predictor, risk of what was scored
    risks.py         that -> risk.parquet, and how many examples are flagged

    measured.py      everything that was measured, read back
    results.py       that -> results.json
    canary_results.py  what models know of canaries
    attack_results.py  the same of attacks beside exact greedy extraction
    leaks.py         that -> leaks with their text, one by one
    leaked.py        these -> leaks.parquet, their counts, the worst of them
    differences.py   two runs -> settings, versions and models that differ
    judging.py       leaks, accepted ones -> the gate's verdict
    tracking.py      results, public page -> experiment trackers
    screened.py      what a screening works with, and knows of each example
    given_predictor.py  a predictor from elsewhere, used on this corpus
    flagging.py      risks -> flagged.parquet of a screening
    screen_record.py  all of that -> screen.json
    tradeoff.py      risks -> what a screening would flag for each recall

A stage reads the files of those before it, writes its own, and does nothing where an earlier call
finished it.
"""
