# `just` alone lists the recipes; each does all of its own set-up with nothing but uv.
set positional-arguments

python := ".venv/bin/python"
parallel := "-n auto --maxprocesses 4 --dist worksteal"
constraints := if path_exists(".ci/constraints.txt") == "true" { "-c .ci/constraints.txt" } else { "" }

_default:
    @just --list --unsorted

# Make .venv with gyoza, its server and the tools of development; at once if nothing has changed
setup:
    #!/usr/bin/env bash
    set -euo pipefail
    wanted=$(cat pyproject.toml .ci/constraints.txt 2>/dev/null | cksum)
    if [[ -x {{ python }} && "$(cat .venv/.set-up-for 2>/dev/null)" == "$wanted" ]]; then exit; fi
    [[ -x {{ python }} ]] || uv venv --quiet --allow-existing --python '>=3.11' .venv
    uv pip install --quiet --python {{ python }} -e '.[server,dev]' {{ constraints }}
    echo "$wanted" > .venv/.set-up-for

# Have a Docker Engine: start one, installed if need be, unless one answers; it stays
engine:
    .ci/with-engine --keep

# Show it: a server, a worker, a dozen real runs on a real engine; nothing is left behind
demo: setup
    .ci/with-engine {{ python }} -m gyoza.demo

# Run the tests; arguments go to pytest, and -m "not docker" needs no engine
test *ARGS: setup
    #!/usr/bin/env bash
    set -euo pipefail
    if [[ " $* " == *" not docker "* || " $* " == *"=not docker "* ]]; then
        exec .venv/bin/pytest {{ parallel }} "$@"
    fi
    exec .ci/with-engine .venv/bin/pytest {{ parallel }} "$@"

# Show that no run is lost: runs under random faults; --quick takes less than 5 minutes
chaos *ARGS: setup
    .ci/with-engine {{ python }} -m tests.chaos "$@"

# Measure what gyoza adds to the engine: all benchmarks or NAMEs, --json FILE, --gate
bench *ARGS: setup
    .ci/with-engine {{ python }} -m tests.benchmarks "$@"

# Draw results of `just bench --json FILE` as SVG: FOLDER FILE...
plots *ARGS: setup
    uv pip install --quiet --python {{ python }} -e '.[plots]' {{ constraints }}
    {{ python }} -m tests.benchmarks.plots "$@"

# Fuzz what reads other people's data: all targets for a short time, or TARGET --seconds N
fuzz *ARGS: setup
    {{ python }} -m tests.fuzz "$@"

# Check style, types and hazards of async code
lint: setup
    .venv/bin/ruff check gyoza tests
    .venv/bin/ruff format --check gyoza tests
    find gyoza tests -name '*.py' -exec .venv/bin/flake8-async --enable=ASYNC102,ASYNC103 {} +
    .venv/bin/basedpyright

# Check everything: lint, the tests with their branch coverage, then fuzzing; the same each time
check: lint
    .ci/with-engine .venv/bin/pytest {{ parallel }} --hypothesis-seed=0 \
        --cov --cov-report=term-missing
    .venv/bin/coverage report --fail-under=100 \
        --include='gyoza/worker/runner/*,gyoza/worker/execution_pipeline/*,gyoza/worker/op_io/*'
    {{ python }} -m tests.fuzz

# Check the docs: links, command lines, names of settings, and the import table
docs: setup
    .venv/bin/pytest -q tests/test_docs.py tests/test_import_rules.py
