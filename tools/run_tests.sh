#!/usr/bin/env bash
# Set everything up and run the tests; arguments go to pytest.
#   bash tools/run_tests.sh [arguments of pytest]

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
bash "$ROOT/tools/install.sh"
unset PYTHONDONTWRITEBYTECODE
# The machine's cores go to the tests' own processes, not to threads in each.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MPLBACKEND=Agg
cd "$ROOT"
exec "$ROOT/.venv/bin/python" -m pytest -n logical --maxprocesses 8 \
    --dist loadfile --durations=10 "$@"
