#!/usr/bin/env bash
# Make .venv beside this folder's parent and install the pinned set into it.
# Run again, it does nothing unless a pin changed.
#   bash tools/install.sh
# PYTHON chooses the interpreter (3.11 or 3.12).

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
VENV=$ROOT/.venv
PINS=$ROOT/requirements/pinned.txt
LOG=$VENV/install.log
CPU_INDEX=https://download.pytorch.org/whl/cpu
unset PYTHONDONTWRITEBYTECODE  # compiled files make every later start faster

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
        >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.11 python3.12 python}; do
        if is_supported "$name"; then echo "$name"; return; fi
    done
    echo "mmblockdrop's pinned set needs Python 3.11 or 3.12, and none of" \
        "${PYTHON:-python3, python3.11, python3.12, python} is one." \
        'Name one: PYTHON=/path/to/python3.11 bash tools/install.sh' >&2
    exit 1
}

# Run a command with its output in the log, and say every few seconds how far
# it is: packages unpacked so far, or else the log's last line.
with_progress() {
    local what=$1 started=$SECONDS pause=2
    [ -t 1 ] || pause=10
    shift
    "$@" >>"$LOG" 2>&1 &
    job=$!  # global: the trap outlives this function
    trap 'kill "$job" 2>/dev/null' EXIT
    while kill -0 "$job" 2>/dev/null; do
        if (((SECONDS - started) % pause == 0)); then
            say $((SECONDS - started)) "$(how_far "$what")"
        fi
        sleep 1
    done
    trap - EXIT
    if ! wait "$job"; then
        printf '\n%s failed; the end of %s:\n' "$what" "$LOG" >&2
        tail -n 15 "$LOG" >&2
        exit 1
    fi
    say $((SECONDS - started)) "$what: done"
    [ ! -t 1 ] || echo
}

say() {
    if [ -t 1 ]; then printf '\r  %3d s  %-66s' "$1" "${2:0:66}"
    else printf '  %3d s  %s\n' "$1" "${2:0:66}"; fi
}

how_far() {
    local total count
    if [ "$1" != packages ]; then echo "$1"; return; fi
    total=$(grep -c == "$PINS")
    count=$(find "$VENV"/lib -maxdepth 3 -name '*.dist-info' \
        ! -name 'pip-*' ! -name 'setuptools-*' | wc -l)
    if [ "$count" -gt 0 ]; then
        echo "packages: $((count < total ? count : total)) of $total unpacked"
    else
        { grep -v WARNING "$LOG" || echo packages; } | tail -n 1
    fi
}

# Without a GPU, PyTorch's own index has builds that are ten times smaller.
# Where it does not answer, pip's configured index decides.
extra_index() {
    command -v nvidia-smi >/dev/null 2>&1 && return
    [ "$(uname -s)" = Linux ] || return 0
    "$VENV/bin/python" - "$CPU_INDEX" <<'EOF' 2>/dev/null || return 0
import sys
import urllib.request
urllib.request.urlopen(sys.argv[1] + '/torch/', timeout=5).read(1)
EOF
    echo "--extra-index-url $CPU_INDEX"
}

BASE=$(find_python)
STAMP=$(cat "$PINS" "$0" <(echo "$ROOT"; "$BASE" -V) | cksum)
if [ "$(cat "$VENV/installed" 2>/dev/null)" = "$STAMP" ]; then
    echo "Environment: $VENV is up to date"
    exit 0
fi
echo "Environment: installing into $VENV with $("$BASE" -V)"
if [ -e "$VENV" ] && [ ! -e "$LOG" ]; then
    echo "$VENV exists, but this script did not make it: move it away" >&2
    exit 1
fi
rm -rf "$VENV"  # half an installation cannot be repaired
"$BASE" -m venv "$VENV"
: >"$LOG"
PIP="$VENV/bin/python -m pip --disable-pip-version-check --no-input"
# shellcheck disable=SC2046,SC2086
with_progress packages $PIP install --no-compile --progress-bar off \
    $(extra_index) -r "$PINS"
# shellcheck disable=SC2086
with_progress mmblockdrop $PIP install --no-deps --no-build-isolation \
    --progress-bar off -e "$ROOT"
# mim looks in site-packages, also for an editable installation.
ln -sfn "$ROOT/mmblockdrop" "$("$VENV/bin/python" -c \
    'import sysconfig; print(sysconfig.get_path("purelib"))')/mmblockdrop"
$PIP check
# Import once what every program imports, so that it is compiled from now on.
with_progress 'first import' "$VENV/bin/python" -W ignore -c '
import mmblockdrop, mmaction.models, mmaction.datasets, mmengine.runner
import av, decord, matplotlib.pyplot, peft, pytest, torch.distributed.run'
echo "$STAMP" >"$VENV/installed"
