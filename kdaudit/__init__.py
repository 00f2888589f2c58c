"""kdaudit: privacy audit for distilled language models."""

from __future__ import annotations

import os

# Set before any library below is imported, in every process that works for kdaudit: nobody is told what is
# audited. datasets would count downloads, vLLM and huggingface_hub report usage.
os.environ.update(
    {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
)

__version__ = "0.1.0"
