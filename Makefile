# make run   set everything up and start the studio (http://localhost:7860)
# make test  set everything up and run all tests that need no GPU
PY := .venv/bin/python
TIERS ?= tests/unit tests/sim tests/ui

run: setup
	$(PY) app.py $(ARGS)

test: setup-test
	$(PY) -m ruff check .
	$(PY) -m pytest $(TIERS)

unit: setup-test
	$(PY) -m pytest tests/unit

bench: setup-test
	$(PY) -m benchmarks.scene
	$(PY) -m benchmarks.model
	$(PY) -m benchmarks.descent --threads 1
	$(PY) -m benchmarks.descent --threads 1 --dtype bfloat16
	$(PY) -m benchmarks.heads
	$(PY) -m benchmarks.train
	$(PY) -m benchmarks.evaluate
	$(PY) -m benchmarks.live
	$(PY) -m benchmarks.collect
	$(PY) -m benchmarks.serve

setup:
	bash .ci/setup

setup-test:
	bash .ci/setup test

.PHONY: run test unit bench setup setup-test
