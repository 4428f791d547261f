# Two commands do everything: `make demo` and `make test`. Needed: Python 3.12, git, make, a C++ compiler (PyBullet).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON312 ?= $(shell for p in python3.12 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null \
	&& command -v $$p && break; done; true)
UV := .uv/bin/uv
RUN := .venv/bin
TEST_WORKERS ?= 2
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
# Where Python may not write bytecode, each of the hundreds of processes that the tests start compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE
BENCHES := $(filter-out common render,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: setup demo test test-slow test-faults test-gpu test-soak lint format bench bench-docs clean $(addprefix bench-,$(BENCHES))

setup: .venv/.complete .venvs/colcon/.complete .venvs/clients/.complete

.uv/.complete:
	@test -n "$(PYTHON312)" || { echo "make: Python 3.12 is needed; install it or set PYTHON312=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON312) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@touch $@

# --compile-bytecode: where Python may not write it, torch and transformers would be compiled at every start, for 10 to 15 s.
# --inexact: the ROS wheels bring egg-info folders, which uv takes for packages that nobody asked for; it would remove rclpy with them.
.venv/.complete: .uv/.complete uv.lock pyproject.toml $(wildcard */pyproject.toml)
	@test -n "$(PYTHON312)" || { echo "make: Python 3.12 is needed; install it or set PYTHON312=/path/to/python3.12" >&2; exit 2; }
	@begun=$$SECONDS; $(UV) sync --frozen --inexact --all-packages --python "$(PYTHON312)" --no-install-package pybullet --quiet; \
		echo "set-up: packages in $$((SECONDS - begun)) s"
	@begun=$$SECONDS; $(UV) sync --frozen --inexact --all-packages --python "$(PYTHON312)" --compile-bytecode --quiet; \
		echo "set-up: PyBullet built in $$((SECONDS - begun)) s (there is no wheel for Python 3.12; uv keeps what it built)"
	@touch $@

.venvs/colcon/.complete: .uv/.complete collection/ros/colcon.txt
	@begun=$$SECONDS; $(UV) venv --quiet --clear --python "$(PYTHON312)" .venvs/colcon; \
		$(UV) pip install --quiet --python .venvs/colcon/bin/python -r collection/ros/colcon.txt; \
		echo "set-up: colcon, for the ROS package's test, in $$((SECONDS - begun)) s"
	@touch $@

.venvs/clients/.complete: .uv/.complete deploy/clients.txt
	@begun=$$SECONDS; $(UV) venv --quiet --clear --python "$(PYTHON312)" .venvs/clients; \
		$(UV) pip install --no-config --quiet --require-hashes --python .venvs/clients/bin/python -r deploy/clients.txt; \
		echo "set-up: clients of other projects, for the policy server's tests, in $$((SECONDS - begun)) s"
	@touch $@

demo: .venv/.complete
	$(RUN)/lehrling demo --out runs/demo

test: setup
	$(RUN)/pytest -n $(TEST_WORKERS) --dist worksteal -m "not slow and not gpu and not soak"

test-slow test-faults test-soak: export LEHRLING_FIGURES := benchmarks/results/reliability.json
test-slow: setup
	$(RUN)/pytest -m slow

test-faults: setup
	LEHRLING_FAULTS=all $(RUN)/pytest -n $(TEST_WORKERS) --dist worksteal -m slow tests/datasets/test_fault_injection.py tests/datasets/test_write_order.py \
		tests/datasets/test_journal_damage.py tests/datasets/test_record_machine.py

test-gpu: setup
	$(RUN)/pytest -m gpu

test-soak: setup
	$(RUN)/pytest -m soak

lint: setup
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/hadolint docker/core.Dockerfile docker/ros.Dockerfile
	$(RUN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

format: setup
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

bench: $(addprefix bench-,$(BENCHES)) bench-docs

$(addprefix bench-,$(BENCHES)): bench-%: setup
	$(RUN)/python -m benchmarks.$*

bench-docs: setup
	$(RUN)/python -m benchmarks.render

clean:
	rm -rf .venv .venvs .uv runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
