# The front door: `make help`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
STACK ?= onedl
VENV ?= $(if $(filter onedl,$(STACK)),.venv,.venv-$(STACK))
ARGS ?=
ISA ?=
BIN := $(VENV)/bin
# Where torch offers a CPU build of its own by this version, take it: it is a tenth of the size.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet
STAMP = $(VENV)/.mmsnn-$(STACK)-$(1)

# As on a CPU without AVX-512, whatever this one has: PyTorch's kernels, oneDNN's, ours, and what
# PyTorch's compiler builds, whose cache doesn't tell one from the other.
ifeq ($(ISA),avx2)
export MMSNN_CPU_ISA := avx2
export ATEN_CPU_CAPABILITY := avx2
export ONEDNN_MAX_CPU_ISA := AVX2
export TORCHINDUCTOR_CACHE_DIR := $(abspath $(VENV))/inductor-avx2
else ifneq ($(ISA),)
$(error ISA=$(ISA) is not known: avx2 hides the newer units of this CPU, and nothing shows all)
endif

.DEFAULT_GOAL := help
.PHONY: help demo demo-events test test-slow sanitize bench nir-readers gpu on-gpu docs figures lint clean

help:  ## this list
	@echo "mmsnn: spiking neural networks for MMDetection"
	@echo
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "Settings: PYTHON=$(PYTHON) TORCH=$(TORCH) STACK=$(STACK) (or openmmlab) VENV=$(VENV)"
	@echo "ISA=avx2 runs any of these as on a CPU without AVX-512"
	@echo "make test ARGS='tests/ops -k lif' hands its arguments on to pytest, make bench to bench.py"

# One file an extra marks what is installed; a change of the requirements installs again.
$(VENV)/.mmsnn-$(STACK)-%: setup.py
	@test -x $(BIN)/python || { echo "== making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "== installing $(TORCH) and mmsnn[$(STACK),$*] (a minute or two)"
	@$(INSTALL) "$(TORCH)" setuptools
	@$(INSTALL) --editable ".[$(STACK),$*]"
	@touch $@

demo: $(call STAMP,demo)  ## train a small Spiking RetinaNet on handwritten digits, evaluate it, leave pictures and a report
	@$(BIN)/python tools/demo.py

demo-events: $(call STAMP,demo)  ## the same before a simulated event camera, with animations
	@$(BIN)/python tools/demo.py --events

# One thread a process: most tests wait for Python, and two of them at once are faster than one on
# two threads.
test: $(call STAMP,test)  ## the test suite (slow proofs excluded)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile \
		--no-loadscope-reorder $(ARGS)

test-slow: $(call STAMP,test)  ## the slow proofs; real COCO images through MMSNN_COCO_TINY=/path
	@$(BIN)/python -m pytest -m slow $(ARGS)

# COUNT random inputs to each variant of the kernels; ARGS are tests to run on the newest, too.
COUNT ?= 10000
sanitize: $(call STAMP,test)  ## random inputs to the C kernels under AddressSanitizer and UBSan
	@$(BIN)/python tests/helpers/sanitizers.py $(COUNT) $(ARGS)

# --no-deps: SpikingJelly asks for torchvision and torchaudio, which it runs without and which can
# bring another torch.
$(call STAMP,spikingjelly): $(call STAMP,bench)
	@$(INSTALL) --no-deps spikingjelly==2.0.0
	@touch $@

bench: $(call STAMP,spikingjelly)  ## time and memory against SpikingJelly, MMDetection's ANN and the convs alone
	@$(BIN)/python benchmarks/bench.py $(ARGS)

# --no-deps: they ask for other versions of nir and for what their readers don't import.
$(call STAMP,nir-readers): $(call STAMP,test) $(call STAMP,spikingjelly)
	@$(INSTALL) --no-deps nirtorch==2.6 snntorch==1.0.0 norse==1.1.0 sinabs==3.1.3 pbr
	@touch $@

nir-readers: $(call STAMP,nir-readers)  ## which other programs give the same spikes of our NIR graphs
	@$(BIN)/python benchmarks/nir_readers.py

# An environment of its own: a build of PyTorch for CUDA takes gigabytes, and one for CPUs may be in
# $(VENV) already.
gpu:  ## on a machine with a GPU: its tests, the bench and a training to the end, results to docs/gpu.md
	@command -v nvidia-smi >/dev/null || { echo "make gpu: no GPU here: there is no nvidia-smi" >&2; exit 1; }
	@$(MAKE) --no-print-directory VENV=$(VENV)-gpu on-gpu

on-gpu: $(call STAMP,test) $(call STAMP,demo) $(call STAMP,spikingjelly)
	@$(BIN)/python benchmarks/gpu.py

# -W: a warning, such as a link that leads nowhere, ends the build.
docs: $(call STAMP,docs)  ## the site, in docs/_build/html/index.html
	@$(BIN)/python -m sphinx -W --keep-going --quiet docs docs/_build/html
	@echo "the site: docs/_build/html/index.html"

figures: $(call STAMP,docs)  ## the pictures of docs/concepts.md, from the code
	@$(BIN)/python docs/figures.py docs/images

lint: $(call STAMP,lint)  ## ruff, and mypy over mmsnn/
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy

clean:  ## remove the venv and build leftovers (work_dirs/ and data/ stay)
	rm -rf $(VENV) $(VENV)-gpu build docs/_build *.egg-info .pytest_cache .ruff_cache .hypothesis
