# `make help` lists what there is. PYTHON names the interpreter, SLOW=1 adds the slow tests, JOBS the test processes.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Files are UTF-8, and so are their names, whatever the locale says.
export PYTHONUTF8 := 1
.PHONY: help setup demo test test-rest search fuzz test-cpus lint format js docs bench starter-eval lock clean

BIN := .venv/bin
STAMP := .venv/.installed
JS := review_ui/browser
JS_STAMP := $(JS)/node_modules/.installed
SLOW ?=
JOBS ?= auto
ARGS ?=
MARKERS := not gpu and not browser$(if $(SLOW),, and not slow)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install requirements.lock and the project into .venv; nothing the second time
$(STAMP): requirements.lock pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" deploy/setup.sh
	@touch $@

demo: setup ## label the bundled sample images with the bundled models, into ./demo
	@$(BIN)/vouch demo

# One thread a process: the tests are many and small, and torch's threads would fight over the cores. Bytecode is kept
# even where the environment says not to: hundreds of modules would be compiled by each of dozens of processes.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile

test: setup ## run the tests but those that need a GPU or Chromium; SLOW=1 adds those that take long
	$(PYTEST) -m "$(MARKERS)" --cov --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

# They wait much of the time: for servers, browsers, clusters. So two cores do more than two at once.
test-rest: JOBS := $(if $(filter auto,$(JOBS)),3,$(JOBS))
test-rest: setup ## run what `make test` leaves out: what takes long, needs Chromium, or an S3-compatible server
	$(PYTEST) -m "not gpu and (slow or browser or s3)" $(ARGS)

search: setup ## look for counterexamples: the property tests on new random examples, EXAMPLES (2000) each
	@EXAMPLES="$(or $(EXAMPLES),2000)" $(PYTEST) -m "hypothesis and not gpu" --hypothesis-profile=search $(ARGS) || \
	  { echo "Again, from what is kept in .hypothesis: $(BIN)/python -m pytest --hypothesis-profile=search FILE::TEST" ; \
	    echo "To keep a case, give it to its test as @example(...)."; exit 1; }

fuzz: setup ## give the readers damaged files: 5,000 of truth, verdicts, campaigns and requests, 20,000 images; FUZZ (1) times that
	@FUZZ="$(or $(FUZZ),1)" $(PYTEST) tests/fuzz -rP $(ARGS) || \
	  { echo "Again: SEED=$(or $(SEED),0) FUZZ=$(or $(FUZZ),1) $(BIN)/python -m pytest tests/fuzz; one input alone:" ; \
	    echo "$(BIN)/python -m tests.fuzz.run KIND SEED 1 FOLDER"; exit 1; }

test-cpus: setup ## run the numerical and the end-to-end tests as other processors would compute them; SLOW=1 as above
	SLOW="$(SLOW)" JOBS="$(JOBS)" ARGS="$(ARGS)" tests/cpus.sh

lint: setup ## ruff (rules, format), mypy --strict, imports, words, and hadolint where its wheel exists
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python docs/words.py
	if test -x $(BIN)/hadolint; then $(BIN)/hadolint -c deploy/.hadolint.yaml deploy/Dockerfile.*pu; fi

format: setup ## let ruff put the files in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## build the site of docs/ into site/; a link that leads nowhere fails
	$(BIN)/python docs/reference.py
	$(BIN)/zensical build --strict --clean

js: $(JS_STAMP) ## lint, check, test and bundle the browser side of the review; needs node and npm
	cd $(JS) && npm run --silent check
$(JS_STAMP): $(JS)/package.json $(JS)/.npmrc
	cd $(JS) && npm install --no-progress --loglevel=error
	@touch $@

bench: setup ## measure, print the tables and write them under benchmarks/
	$(BIN)/python -m benchmarks $(ARGS)

starter-eval: setup ## measure the bundled models on scenes that they have not seen
	$(BIN)/python -m vouch_labels.starter.evaluate $(ARGS)

# No index, no header: the lock names versions and hashes, never addresses.
lock: setup ## resolve pyproject.toml into requirements.lock again
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml deploy/groundingdino.in >/dev/null

clean: ## remove .venv, the demo and what tools leave behind
	rm -rf .venv demo site $(JS)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
