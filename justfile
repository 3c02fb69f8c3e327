# `just` alone lists the recipes; each does all of its own set-up with nothing but uv.
set positional-arguments

python := ".venv/bin/python"
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
        exec .venv/bin/pytest "$@"
    fi
    exec .ci/with-engine .venv/bin/pytest "$@"

# Check style, types, hazards of async code, and the tests with their coverage
check: setup
    .venv/bin/ruff check
    .venv/bin/ruff format --check
    find gyoza tests -name '*.py' -exec .venv/bin/flake8-async --enable=ASYNC102,ASYNC103 {} +
    .venv/bin/basedpyright
    .ci/with-engine .venv/bin/pytest --cov --cov-report=term-missing:skip-covered
