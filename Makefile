# `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3.11
JOBS ?= 2# runs side by side, one core each
SEEDS ?= 1# seeds 0 to SEEDS-1
ARGS ?=# more overrides, as in ARGS="trainer.max_steps=20"

BIN := .venv/bin
comma := ,
seeds := $(shell seq -s, 0 $$(( $(SEEDS) - 1 )))

.DEFAULT_GOAL := help
.PHONY: help setup test lint xtreme-up reproduce-table1 reproduce-table3 languages gates search

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  options: JOBS=$(JOBS) runs side by side, SEEDS=$(SEEDS) seeds a method, ARGS=\"key=value …\""

setup: .venv/ready ## make .venv/ with every dependency at its pinned version

.venv/ready: constraints.txt pyproject.toml
	@echo "Setting up .venv/ with everything pinned, once"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

test: setup ## lint, and run every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: setup ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

xtreme-up: setup ## download XTREME-UP (its NER is not for commercial use) to outputs/data/xtreme_up
	$(BIN)/python -m flix_lightning.data.download $(ARGS)

# Finished runs are skipped, and a run that another job is at is left to it: so the jobs of a sweep share it.
define sweep
	@$(BIN)/python report.py --if-finished $(1) || { \
	  jobs=(); \
	  for job in $$(seq $(JOBS)); do \
	    $(BIN)/python train.py -m $(1) trainer.progress=lines & jobs+=($$!); \
	  done; \
	  trap 'kill "$${jobs[@]}" 2>/dev/null' INT TERM; \
	  failed=0; for job in "$${jobs[@]}"; do wait "$$job" || failed=1; done; \
	  [ $$failed = 0 ] && $(BIN)/python report.py $(1); \
	}
endef

reproduce-table1: setup ## train all of Table 1 on the built-in benchmark and print it
	$(call sweep,+sweeps=table1 seed=$(seeds) $(ARGS))

reproduce-table3: setup ## train all of Table 3 (feature dropout) on the built-in benchmark and print it
	$(call sweep,+sweeps=table3 seed=$(seeds) $(ARGS))

languages: setup ## FLix minus LoRA as the mixture grows from 5 languages to all
	$(call sweep,+sweeps=languages seed=$(seeds) $(ARGS))

gates: setup ## see whether the built-in benchmark can tell methods apart, by the base and LoRA alone
	$(call sweep,+sweeps=gates seed=$(seeds) $(ARGS))

search: setup ## search learning rates and dropouts, on validation data
	$(call sweep,+sweeps=search_lora $(ARGS))
	$(call sweep,+sweeps=search_flix $(ARGS))
