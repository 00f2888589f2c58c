"""The Arrow schema of every table that kdaudit writes, each spelled here alone; `layout` names the files.

The columns of an attack are its own (`kdaudit.attacks`); the metadata of its shards name the engine and the
seconds that it took.
"""

from __future__ import annotations

import pyarrow as pa

EXAMPLES_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),  # counts from 0, in the order of first places
        ("document_id", pa.string()),  # of its first place
        ("offset", pa.int32()),  # of its first token there, in tokens from the document's start
        ("text", pa.string()),  # of the whole window
        ("token_ids", pa.list_(pa.int32())),  # of the whole window, the teacher's
        ("copies", pa.int32()),  # places where this window stands
        ("prefix_tokens", pa.int32()),  # how many of token_ids are the prompt; as the next, not in old runs
        ("suffix_tokens", pa.int32()),  # how many behind those are the target; others follow it
        ("prompt_end", pa.int32()),  # characters of text that are the prompt; as the next, null where all
        ("target_end", pa.int32()),  # models read the same tokens, and not in old runs; prompt and target
    ]
)
"""A row a distinct window: examples/part-*.parquet."""

ENDS_COLUMNS = ("prompt_end", "target_end")
"""Columns of EXAMPLES_SCHEMA for models with tokenizers of their own."""

CUT_COLUMNS = ("prefix_tokens", "suffix_tokens")
"""Columns of EXAMPLES_SCHEMA that runs of earlier versions lack: there they are the run's settings."""

PLANTED_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),  # of canaries/examples/
        ("family", pa.string()),
        ("repetitions", pa.int32()),  # 0 for a control
    ]
)
"""A row a canary or control that no other begins like, by example id."""

SUFFIX_COPIES_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("suffix_copies", pa.int64()),  # places of its suffix in the corpus, at any offset of any document
    ]
)

CONTINUATIONS_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("token_ids", pa.list_(pa.int32())),  # as many as the suffix has
    ]
)

FEATURES_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("zlib_entropy", pa.float64()),  # bits of the compressed text for each byte of the text
        ("teacher_perplexity", pa.float64()),
        ("baseline_perplexity", pa.float64()),
        ("kl_divergence", pa.float64()),  # teacher from baseline, nats a token
        ("suffix_copies", pa.int64()),
        ("copies", pa.int32()),
        ("tokens", pa.int32()),  # of the whole window
        ("teacher_entropy", pa.float64()),  # mean over tokens, nats
        ("baseline_entropy", pa.float64()),
        ("teacher_matched", pa.int16()),  # under teacher forcing: what an extraction finds, but for near ties
        ("baseline_matched", pa.int16()),
        ("suffix_kl_divergence", pa.float64()),  # this and all below: over the suffix's tokens alone
        ("teacher_suffix_nll", pa.float64()),  # mean -ln p, nats a token
        ("teacher_suffix_entropy", pa.float64()),
        ("teacher_suffix_min_k", pa.float64()),  # mean of the lowest 20% of ln p
        ("teacher_suffix_worst", pa.float64()),  # lowest ln p
        ("teacher_suffix_margin", pa.float64()),  # smallest lead of a true token's logit over all others
        ("teacher_suffix_spread", pa.float64()),  # best logit less the median of all, at that token
        ("baseline_suffix_nll", pa.float64()),
        ("baseline_suffix_entropy", pa.float64()),
        ("baseline_suffix_min_k", pa.float64()),
        ("baseline_suffix_worst", pa.float64()),
        ("baseline_suffix_margin", pa.float64()),
        ("baseline_suffix_spread", pa.float64()),
    ]
)

ENTROPY_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("model", pa.string()),
        ("mean_token_entropy", pa.float64()),  # nats, over all tokens after the first
        ("mean_log_probability", pa.float64()),  # of the tokens that stand there
    ]
)

NEARNESS_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("wrong_tokens", pa.int32()),  # of the suffix: not the argmax after the true tokens before them
        ("log_probability", pa.float64()),  # of the suffix, mean over its tokens, nats
    ]
)
"""A row an example that some model memorizes."""

SCORE_SAMPLE_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("weight", pa.float64()),  # examples that it stands for: one over its probability to be in the sample
    ]
)
"""A row an example that the scoring pass reads, by example id."""

FEATURE_SAMPLE_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("weight", pa.float64()),  # as in SCORE_SAMPLE_SCHEMA; 0 where only its entropy is wanted
        ("whole", pa.bool_()),  # whether its window is read to the end; else to the end of its suffix
    ]
)
"""A row an example that features are taken of, by example id."""

SCORES_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("log_probabilities", pa.list_(pa.float32())),  # ln p of the suffix's tokens, as the next two
        ("means", pa.list_(pa.float32())),  # mean of ln p over the next-token distribution
        ("variances", pa.list_(pa.float32())),  # variance of the same
        ("hits", pa.list_(pa.bool_())),  # whether the suffix's tokens are the argmax
        ("prefix_log_probability", pa.float64()),  # sum over it; without BOS token not its first token
        ("sampled_log_probability", pa.float64()),  # ln p that it is drawn; -inf where a token is outside the
    ]  # top k; null where no sampling was asked for, and of models with other tokenizers
)
"""A row an example: scores/MODEL/part-*.parquet, in no order; those of other samples may be among them."""

RISK_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("risk", pa.float64()),  # 0 to 1; null where there is no predictor
        ("flagged", pa.bool_()),
    ]
)

SCORED_RISK_SCHEMA = pa.schema(
    [
        *RISK_SCHEMA,
        ("weight", pa.float64()),  # examples of the corpus that it stands for
        ("document_id", pa.string()),
        *(field for field in FEATURES_SCHEMA if field.name != "example_id"),
    ]
)
"""The same of an audit with a predictor: a row an example that was scored."""

LEAKS_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("document_id", pa.string()),
        ("offset", pa.int32()),
        ("copies", pa.int32()),
        ("text", pa.string()),
        ("prefix", pa.string()),
        ("suffix", pa.string()),
        (
            "models",  # every audited model, memorizing or not
            pa.list_(
                pa.struct(
                    [
                        ("name", pa.string()),
                        ("matched_tokens", pa.int16()),
                        ("continuation", pa.string()),
                        ("expected_queries", pa.float64()),  # samples until one is the suffix, on average;
                    ]  # infinite where none can be, null where it is not known
                )
            ),
        ),
        ("classes", pa.list_(pa.struct([("student", pa.string()), ("class", pa.string())]))),
        ("risk", pa.float64()),
        ("tags", pa.list_(pa.string())),  # kinds of personal data found in it
        ("memorized_by", pa.list_(pa.string())),  # all models; this and all below: not in old runs
        ("suffix_hmac", pa.string()),  # under the run's key
        ("prefix_tokens", pa.int32()),  # null where all examples have as many, as the next
        ("suffix_tokens", pa.int32()),
        ("accepted", pa.bool_()),  # whether the gate disregards it
    ]
)
"""A row an example that a student memorizes, by example id."""

FLAGGED_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("document_id", pa.string()),  # of its first place, as is the next
        ("offset", pa.int32()),
        ("text", pa.string()),
        ("copies", pa.int32()),
        ("risk", pa.float64()),  # null where there is no predictor
        ("memorized_by", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("zlib_entropy", pa.float64()),
        ("teacher_perplexity", pa.float64()),
        ("baseline_perplexity", pa.float64()),
        ("kl_divergence", pa.float64()),
        ("teacher_entropy", pa.float64()),
        ("suffix_copies", pa.int64()),
        ("tokens", pa.int32()),
        ("suffix_kl_divergence", pa.float64()),  # this and all below: over the suffix's tokens alone
        ("teacher_suffix_nll", pa.float64()),
        ("baseline_suffix_nll", pa.float64()),
        ("teacher_suffix_entropy", pa.float64()),
        ("baseline_suffix_entropy", pa.float64()),
        ("teacher_suffix_min_k", pa.float64()),
        ("baseline_suffix_min_k", pa.float64()),
        ("teacher_suffix_margin", pa.float64()),
        ("baseline_suffix_margin", pa.float64()),
    ]
)
"""A row a flagged example, by example id."""

HARD_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),  # its place in the corpus, copies counted
        ("document_id", pa.string()),
        ("prefix", pa.string()),
        ("generated", pa.string()),
        ("prefix_token_ids", pa.list_(pa.int32())),
        ("generated_token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),  # prefix and what follows, as an audit reads it under `generated`
    ]
)
"""A row a training window."""
