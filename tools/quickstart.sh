#!/usr/bin/env bash
# Set everything up and run the main job: train a small detector, drop a
# quarter of its blocks, test both, localize one video. Results go to
# work_dirs in the current folder.
#   bash tools/quickstart.sh [--data ROOT] [--work-dir DIR]
# Run again, it goes on where it stopped and reuses what is finished.

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
PYTHON=${PYTHON:-python}
if [ -f "$ROOT/requirements/pinned.txt" ]; then  # a clone, not a wheel
    bash "$ROOT/tools/install.sh"
    PYTHON=$ROOT/.venv/bin/python
    unset PYTHONDONTWRITEBYTECODE  # compiled files make every start faster
fi
exec "$PYTHON" -W ignore -m mmblockdrop.quickstart "$@"
