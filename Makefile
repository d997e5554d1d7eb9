# Two commands: `make demo` and `make test`. Both build their own environment in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile
DEMO ?= runs/demo
DEMO_STORE ?= stores/demo
DEMO_TRAIN ?= 8000
DEMO_TEST ?= 600

.DELETE_ON_ERROR:
.PHONY: help install demo test test-long lint bench clean clean-demo

help:
	@echo "make demo       environment, install, synthetic data, training, evaluation, report"
	@echo "make test       environment, install, tests"
	@echo "make test-long  the tests that take minutes as well"
	@echo "make lint       ruff and mypy"
	@echo "make bench      the benchmarks, JSON to benchmarks/results"
	@echo "make clean      remove the environment (clean-demo: the demo's store and run)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: pose3d needs Python >= 3.11; run make PYTHON=python3.11 (or newer)"; exit 2; }
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip --version >/dev/null \
	  || { rm -rf $(VENV); echo "error: no virtual environment with pip could be made;" \
	       "install python3-venv or name another Python: make PYTHON=..."; exit 2; }

$(VENV)/.installed: $(BIN)/python setup.py constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[synthetic,human36m]'
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python setup.py constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[synthetic,human36m,flows,dev]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/pose3d-prep synthetic $(DEMO_STORE) --train $(DEMO_TRAIN) --test $(DEMO_TEST) --size 236
	$(BIN)/pose3d-prep verify $(DEMO_STORE)
	$(BIN)/pose3d train configs/demo.yaml --store $(DEMO_STORE) --run $(DEMO) --resume
	$(BIN)/pose3d evaluate $(DEMO)
	$(BIN)/pose3d report $(DEMO)

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not long"

test-long: $(VENV)/.installed-dev
	$(PYTEST) -m "long or not long"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: # the environment; stores and runs stay
	rm -rf $(VENV) build *.egg-info

clean-demo:
	rm -rf $(DEMO) $(DEMO_STORE) stores/bench

bench: $(VENV)/.installed-dev
	mkdir -p stores
	[ -d stores/bench ] || $(BIN)/pose3d-prep synthetic stores/bench --train 512 --test 64 --size 236
	$(BIN)/python benchmarks/bench_data.py --store stores/bench --input-size 128 --out benchmarks/results/data.json
	$(BIN)/python benchmarks/bench_model.py --out benchmarks/results/model.json
	$(BIN)/python benchmarks/bench_train.py --config configs/demo.yaml --store stores/bench --out benchmarks/results/train.json
	$(BIN)/python benchmarks/bench_synthetic.py --out benchmarks/results/synthetic.json
	$(BIN)/python benchmarks/bench_convert.py --out benchmarks/results/convert.json
