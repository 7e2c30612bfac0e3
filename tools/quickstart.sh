#!/usr/bin/env bash
# Set everything up and run the main job: train a small detector, drop a
# quarter of its blocks, test what is left, localize one video.
#   bash tools/quickstart.sh [--data ROOT] [--work-dir DIR]
# Run again, it goes on where it stopped and reuses what is finished.

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
bash "$ROOT/tools/install.sh"
unset PYTHONDONTWRITEBYTECODE  # compiled files make every start faster
export MPLBACKEND=Agg
cd "$ROOT"
exec "$ROOT/.venv/bin/python" -W ignore tools/quickstart.py "$@"
