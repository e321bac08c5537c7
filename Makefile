# make run | test | check | bench [quick] [ROW=csp_net] | site | reproduce [FIG=squint.fig4a] [PROP=dual.prop2] [PACE=full]: each sets up its own
# environment first.
V := .venv
PY := $(V)/bin/python
EXTRAS := dash,learn,sweep,test
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: run test check lint bench quick full reproduce site clean

$(V)/.stamp: pyproject.toml
	@test -x $(PY) || python3 -m venv $(V)
	@echo "installing isac-twin and its extras into $(V) (about a minute the first time)"
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

# Playing needs none of the extras: half the time to a first run.
$(V)/.run: pyproject.toml
	@test -x $(PY) || python3 -m venv $(V)
	@echo "installing isac-twin into $(V) (half a minute the first time); the first run then compiles for about a minute"
	@test $(V)/.stamp -nt pyproject.toml || $(PY) -m pip install -q --disable-pip-version-check -e .
	@touch $@

run: $(V)/.run
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
	@$(PY) -m tools.bench $(or $(filter quick full,$(MAKECMDGOALS)),full) $(addprefix --only ,$(ROW))

quick full:
	@:

site: $(V)/.stamp
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[docs]'
	@$(PY) -m sphinx -q -b html -W --keep-going docs runs/site && echo "runs/site/index.html"

reproduce: $(V)/.stamp
	@$(PY) -m tools.reproduce $(PACE) --workers 2 $(addprefix --only ,$(FIG) $(PROP))

clean:
	rm -rf $(V) runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
