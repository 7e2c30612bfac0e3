#!/usr/bin/env bash
# Check on a machine with a GPU, within 8 minutes and without network:
#   bash projects/benchmarks/gpu_check.sh OUT_FOLDER [WHEEL_FOLDER]
# WHEEL_FOLDER holds what is not installed there; it is unpacked into a
# temporary folder, nothing that is there changes. Make it where there is a
# network (Python and platform of the machine with the GPU):
#   pip download --no-deps --only-binary=:all: --python-version 3.12 \
#       --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
#       -d WHEEL_FOLDER $(bash projects/benchmarks/gpu_check.sh --packages)
# The results are OUT_FOLDER/gpu_check.json and gpu_check.md.

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd -P)
PACKAGES='mmengine mmaction2 mmcv-lite mmpretrain addict termcolor yapf
    decord av peft modelindex mat4py'
if [ "${1:-}" = --packages ]; then
    for name in $PACKAGES; do
        grep -i "^$name==" "$ROOT/requirements/pinned.txt" || echo "$name"
    done
    exit
fi
OUT=${1:?usage: gpu_check.sh OUT_FOLDER [WHEEL_FOLDER] [--toy ...]}
shift
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$ROOT PYTHONUNBUFFERED=1 MPLBACKEND=Agg
if [ -d "${1:-}" ]; then
    SITE=$(mktemp -d)
    trap 'rm -rf "$SITE"' EXIT
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile \
        --no-cache-dir --target "$SITE" "$1"/*.whl
    export PYTHONPATH=$ROOT:$SITE
    shift
fi
cd "$ROOT"
"$PYTHON" -W ignore projects/benchmarks/gpu_check.py "$OUT" "$@"
