# make run | test | check | bench | reproduce [FIG=squint.fig4a] [PROP=dual.prop2] [PACE=full]: each sets up its own environment first.
V := .venv
PY := $(V)/bin/python
EXTRAS := learn,sweep,test
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: run test check lint bench reproduce clean

$(V)/.stamp: pyproject.toml
	@test -x $(PY) || python3 -m venv $(V)
	@echo "installing isac-twin and its extras into $(V) (about a minute the first time)"
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

run: $(V)/.stamp
	@$(V)/bin/twin run scenarios/street.yaml

test: $(V)/.stamp
	@$(PY) -m pytest -n 2 --dist loadfile

lint: $(V)/.stamp
	@$(V)/bin/ruff check .
	@$(V)/bin/ruff format --check .
	@$(V)/bin/mypy
	@$(V)/bin/lint-imports

check: lint test

bench: $(V)/.stamp
	@$(PY) -m tools.bench

reproduce: $(V)/.stamp
	@$(PY) -m tools.reproduce $(PACE) $(addprefix --only ,$(FIG) $(PROP))

clean:
	rm -rf $(V) runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
