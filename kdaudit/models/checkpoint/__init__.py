"""What a model's folder holds, known before any of its weights is loaded.

`files` says what may be opened, `weights` which tensors lie where, `config` what config.json makes of them,
`quantized` and `fit` refuse what would not be the model that is named, `adapter` and `adapter_fit` read LoRA
adapters and say whether they fit their base model, `copies` finds one model named twice.
"""
