"""Models before they are loaded: found, checked to be whole, safe and auditable, with their tokenizers.

audited.py         the models of an audit; audited_notes.py what readers should know of them
finding.py         from a configuration to these
resolving.py       one model, checked; adapters.py a LoRA adapter, endpoints.py one behind a server
fetching.py        where a model lies, on disk or fetched from the hub; hub.py bounds calls of it
fingerprint.py     a model's files as one string
checks.py          what config.json says, checked; context.py the context length
checkpoint/        what a model's folder holds
tokenizer/         how a model reads and writes text
"""
