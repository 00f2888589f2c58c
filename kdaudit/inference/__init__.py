"""Inference engines: a small protocol, vLLM (the default), transformers (the reference) and endpoints.

`start` loads an engine in a worker process of its own; nothing here imports torch or vLLM.

    base.py            the protocol, and what each engine can be asked
    examples.py        what engines are given: rows of token ids of any length
    remote.py          an engine in a worker process; service.py the worker's side
    workers/           worker processes
    executors/         where the replicas of a model run and share its work
    retry.py           what to do when memory runs out

    vllm.py            vLLM; vllm_mask.py what it must not generate
    transformers.py    transformers; float32_logits.py logits of models in half precision
    endpoint/          models behind an OpenAI-compatible server
    scoring/           windows read by forward passes
    sizing.py          batch and cache sizes from machine and model
    prefixes.py, edits.py, texts.py   early exit: until when a target can still come out word for word, with
                       some edits, or as text

    checking.py        the engine check; agreement.py its comparison
    reference.py       what the engine is compared with; reference_service.py the worker's side

    quantized.py       which quantized models an engine can run here
    merged.py          adapters and packed weights as whole models, made by merging.py and unpacking.py;
                       making.py the worker that they are made in
"""

from kdaudit.inference.base import (
    ABILITIES,
    Ability,
    Engine,
    EngineInfo,
    EngineOptions,
    MatchedBytes,
    MatchedTokens,
    Sampling,
    Scores,
    Task,
)
from kdaudit.inference.examples import Batch, Lengths, Ragged, Split, Tokens
from kdaudit.inference.remote import Done, RemoteEngine, prepare, require, start

__all__ = [
    "ABILITIES",
    "Ability",
    "Batch",
    "Done",
    "Engine",
    "EngineInfo",
    "EngineOptions",
    "Lengths",
    "MatchedBytes",
    "MatchedTokens",
    "Ragged",
    "RemoteEngine",
    "Sampling",
    "Scores",
    "Split",
    "Task",
    "Tokens",
    "prepare",
    "require",
    "start",
]
