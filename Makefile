# make run   the main job: an example part from CAD to sealed record and report
# make test  all tests; make check: linters, types, import rules; make bench, soak, docs, pictures
PYTHON ?= python3
PY := .venv/bin/python
LMD := .venv/bin/lmd
READY := .venv/.ready
BUILT := .venv/.built
COMPILED := setup.py $(shell find controller hil_sim firmware_bridge -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -path '*firmware_bridge*' -o -name '*.h' -path '*firmware_bridge*')
PARTS := examples/blade.stl

.PHONY: setup run test test-arm check check-firmware fuzz bench soak docs pictures clean
.DEFAULT_GOAL := run

$(READY): pyproject.toml setup.sh
	@PYTHON="$(PYTHON)" ./setup.sh
	@touch $(READY)

$(BUILT): $(READY) $(COMPILED)
	@$(PY) setup.py -q build_ext --inplace
	@touch $(BUILT)

$(PARTS): examples/make_parts.py $(BUILT)
	@$(PY) examples/make_parts.py
	@touch $(PARTS)

setup: $(BUILT) $(PARTS)

run: setup
	@$(LMD) run examples/blade.stl --out records

# tests of real time run by themselves: their limits are milliseconds
test: setup
	@$(PY) -m pytest -q -n 2 -m "not realtime and not arm"
	@$(PY) -m pytest -q -m realtime

# the firmware on an emulated Cortex-M3; installs compiler and emulator, or says the command
test-arm: setup check-firmware
	@$(PY) -m pytest -q -m arm

check-firmware: setup
	@firmware_bridge/firmware/tools/arm_tools.sh arm
	@$(MAKE) -s -C firmware_bridge/firmware all check

# FUZZ_SECONDS=60 make fuzz; without clang: own mutations, gcc's sanitizers
fuzz: setup
	@firmware_bridge/firmware/tools/arm_tools.sh fuzz || echo "fuzz: no libFuzzer, gcc instead"
	@$(MAKE) -s -C firmware_bridge/firmware fuzz

check: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

# rivals are extras: without them their rows have no ratio, and the rest runs all the same
bench: setup
	@$(PY) -c "import toppra, ruckig" 2>/dev/null || \
		$(PY) -m pip install --quiet --disable-pip-version-check \
		$$($(PY) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench'])") || \
		echo "bench: toppra and ruckig cannot be installed; their rows stay empty"
	@$(PY) -m benchmarks

soak: setup
	@$(PY) -m benchmarks.soak

docs: setup
	@$(PY) -c "import myst_parser, sphinx" 2>/dev/null || \
		$(PY) -m pip install --quiet --disable-pip-version-check "sphinx>=8" "myst-parser>=4"
	@$(PY) -m sphinx -q -W -b html docs docs/_build
	@echo "docs: docs/_build/index.html"

pictures: setup
	@$(PY) docs/make_pictures.py

clean:
	@rm -rf build .venv run records docs/_build
