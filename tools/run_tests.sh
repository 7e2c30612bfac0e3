#!/usr/bin/env bash
# Set everything up, check the code, and run the tests.
#   bash tools/run_tests.sh [arguments of pytest]
#   bash tools/run_tests.sh -m 'not slow'   # the quick ones, in 3 minutes

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
bash "$ROOT/tools/install.sh"
bash "$ROOT/tools/lint.sh"
unset PYTHONDONTWRITEBYTECODE
# The machine's cores go to the tests' own processes, not to threads in each.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MPLBACKEND=Agg
cd "$ROOT"
exec "$ROOT/.venv/bin/python" -m pytest -n logical --maxprocesses 8 \
    --dist loadfile --durations=10 "$@"
