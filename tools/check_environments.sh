#!/usr/bin/env bash
# Build environments from nothing and try mmblockdrop in each: imports, a
# training, one round of block drop with LoRA, a test and an export of a toy.
#   bash tools/check_environments.sh [--keep] FOLDER [NAME ...]
# FOLDER must be outside the repository and takes about 6 GB per environment
# where the index has builds of torch with CUDA only; each one is removed
# before the next is built, unless --keep is given. Without names all are
# tried. The table is printed and written to FOLDER/table.md.
# uv is used where it is on PATH, else venv and pip. PYTHON_NEWEST names the
# newest Python to try; INDEX a further index, such as PyTorch's of CPU builds.

set -uo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
KEEP=
if [ "${1:-}" = --keep ]; then KEEP=1; shift; fi
[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
FOLDER=$(cd "$1" && pwd -P)
shift
case "$FOLDER/" in
"$ROOT"/*) echo "$FOLDER is inside the repository" >&2; exit 2 ;;
esac

newest_python() {
    local name
    for name in ${PYTHON_NEWEST:-python3.14 python3.13 python3.12}; do
        if "$name" -c '' >/dev/null 2>&1; then echo "$name"; return; fi
    done
    echo python3.11
}

OPENMMLAB='mmaction2==1.2.0 mmcv-lite==2.1.0 mmengine==0.10.7 mmpretrain==1.2.0'
NAMES='pinned newest torch-2.6 transformers-4 mmdet onedl'

# Interpreter, what is there before, and what is installed beside mmblockdrop.
describe() {
    PYTHON=python3.11 BEFORE="setuptools<81 $OPENMMLAB" EXTRA='.[lora]'
    case $1 in
    pinned) BEFORE="-r $ROOT/requirements/pinned.txt" EXTRA=. ;;
    newest)
        PYTHON=$(newest_python)
        BEFORE="torch torchvision numpy>=2 peft transformers $BEFORE" EXTRA=. ;;
    torch-2.6) BEFORE="torch==2.6.0 torchvision==0.21.0 $BEFORE" ;;
    transformers-4)
        BEFORE="torch==2.6.0 torchvision==0.21.0 transformers<5 peft $BEFORE"
        EXTRA=. ;;
    mmdet)
        BEFORE="torch==2.6.0 torchvision==0.21.0 mmdet==3.3.0 pycocotools timm"
        BEFORE="$BEFORE transformers>=5 peft setuptools<81 $OPENMMLAB" EXTRA=. ;;
    onedl)
        BEFORE='torch==2.6.0 torchvision==0.21.0 setuptools<81 mmaction2==1.2.0'
        BEFORE="$BEFORE onedl-mmengine onedl-mmcv onedl-mmpretrain" ;;
    *) echo "There is no environment $1; expected one of $NAMES" >&2; exit 2 ;;
    esac
}

make_environment() {
    if command -v uv >/dev/null; then uv venv -q --clear --python "$PYTHON" "$1"
    else "$PYTHON" -m venv --clear "$1"; fi
}

install() { # environment, requirements
    local env=$1
    shift
    if command -v uv >/dev/null; then
        uv pip install --python "$env/bin/python" --index-strategy \
            unsafe-best-match --refresh-package mmblockdrop \
            ${INDEX:+--extra-index-url "$INDEX"} "$@"
    else
        "$env/bin/python" -m pip --disable-pip-version-check install \
            --progress-bar off ${INDEX:+--extra-index-url "$INDEX"} "$@"
    fi
}

freeze() {
    "$1/bin/python" - <<'PY'
from importlib.metadata import distributions
print('\n'.join(sorted({f'{d.name}=={d.version}' for d in distributions()
                        if d.name != 'mmblockdrop'})))
PY
}

# Which modules can be imported by a program that does not import mmblockdrop.
imports() {
    "$1/bin/python" -W ignore - 2>/dev/null <<'PY'
import importlib
for name in ('mmengine.runner', 'mmcv', 'mmpretrain.models', 'mmpretrain.apis',
             'mmaction.datasets', 'mmaction.apis', 'mmaction.models', 'mmdet'):
    try:
        importlib.import_module(name)
        print(name)
    except Exception:
        pass
PY
}

try_import() {
    "$1/bin/python" -W ignore -c 'import mmblockdrop, mmaction.models
import mmaction.datasets, mmblockdrop.apis, mmblockdrop.rounds'
}

try_round() {
    "$1/bin/python" -W ignore - <<'PY'
import toy
for name, cfg in dict(
        base=toy.config('base'),
        rounds=toy.block_drop('rounds', 'base/epoch_1.pth', drops=1)).items():
    cfg.custom_imports = dict(imports=['toy'])
    cfg.dump(f'{name}.py')
PY
    local python="$1/bin/python -W ignore"
    $python "$SOURCE/tools/train.py" base.py &&
        $python "$SOURCE/tools/train.py" rounds.py
}

try_test() {
    "$1/bin/python" -W ignore "$SOURCE/tools/test.py" base.py rounds/round_1.pth
}

try_export() {
    "$1/bin/python" -W ignore "$SOURCE/tools/export.py" base.py \
        rounds/round_1.pth exported --shape 1 1 3 16 16 16 && [ -n "$(ls exported)" ]
}

check() {
    local name=$1 env=$FOLDER/$1/env log=$FOLDER/$1/log.txt row step
    describe "$name"
    mkdir -p "$FOLDER/$name/run"
    cd "$FOLDER/$name/run" || return 1
    echo "$name: $PYTHON, $BEFORE" | tee "$log"
    # shellcheck disable=SC2086
    if ! { make_environment "$env" && install "$env" $BEFORE; } >>"$log" 2>&1
    then
        echo "| $name | could not be installed, see log.txt | | | | | |" >>"$TABLE"
        return 1
    fi
    freeze "$env" >../before.txt
    imports "$env" >../imports_before.txt
    if ! install "$env" "$SOURCE${EXTRA#.}" >>"$log" 2>&1; then
        echo "| $name | mmblockdrop could not be installed | | | | | |" >>"$TABLE"
        return 1
    fi
    freeze "$env" >../after.txt
    imports "$env" >../imports_after.txt
    row=$("$env/bin/python" - <<'PY'
import platform
from importlib.metadata import PackageNotFoundError, version
found = [f'Python {platform.python_version()}']
for name in ('torch', 'numpy', 'transformers', 'mmengine', 'onedl-mmengine'):
    try:
        found.append(f'{name} {version(name)}')
    except PackageNotFoundError:
        pass
print(', '.join(found))
PY
)
    row="| $name | $row |"
    if [ -n "$(comm -23 ../before.txt ../after.txt)" ]; then
        row="$row changed: $(comm -23 ../before.txt ../after.txt | xargs) |"
    elif [ -n "$(comm -23 ../imports_before.txt ../imports_after.txt)" ]; then
        row="$row lost: $(comm -23 ../imports_before.txt \
            ../imports_after.txt | xargs) |"
    else row="$row unchanged |"; fi
    export PYTHONPATH=$SOURCE/tests MPLBACKEND=Agg OMP_NUM_THREADS=1
    export CUDA_VISIBLE_DEVICES=''
    for step in import round test export; do
        echo "== $step" >>"$log"
        if "try_$step" "$env" >>"$log" 2>&1; then row="$row works |"
        else row="$row **fails** |"; fi
    done
    unset PYTHONPATH
    echo "$row" | tee -a "$TABLE"
    [ -n "$KEEP" ] || rm -rf "$env"
}

# A copy, since building a package writes beside its source.
SOURCE=$FOLDER/source
rm -rf "$SOURCE"
mkdir -p "$SOURCE"
git -C "$ROOT" ls-files -z | tar -C "$ROOT" --null -T - -c | tar -x -C "$SOURCE"
TABLE=$FOLDER/table.md
{
    echo '| Environment | Versions | Packages and imports that were there |' \
        'Import | Round | Test | Export |'
    echo '| --- | --- | --- | --- | --- | --- | --- |'
} >"$TABLE"
FAILED=0
for name in ${*:-$NAMES}; do
    check "$name" || FAILED=1
done
cat "$TABLE"
! grep -q 'fails\|could not\|changed:\|lost:' "$TABLE" && [ "$FAILED" = 0 ]
