#!/usr/bin/env bash
# Check the code by the rules in pyproject.toml: ruff, isort, codespell, mypy.
#   bash tools/lint.sh [--fix]
# --fix lets all but mypy change what they can.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
PYTHON=.venv/bin/python
[ -x "$PYTHON" ] || PYTHON=python
RUFF=() ISORT=(--check-only) CODESPELL=()
if [ "${1:-}" = '--fix' ]; then
    RUFF=(--fix) ISORT=() CODESPELL=(--write-changes)
fi
FAILED=()
"$PYTHON" -m ruff check --quiet --output-format concise "${RUFF[@]}" || FAILED+=(ruff)
"$PYTHON" -m isort --quiet "${ISORT[@]}" . || FAILED+=(isort)
"$PYTHON" -m codespell_lib "${CODESPELL[@]}" || FAILED+=(codespell)
"$PYTHON" -m mypy || FAILED+=(mypy)
if [ "${#FAILED[@]}" -gt 0 ]; then
    echo "Lint: ${FAILED[*]} found something" >&2
    exit 1
fi
