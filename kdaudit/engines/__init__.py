"""Inference engines: a small protocol, vLLM (the default) and transformers (the reference)."""
