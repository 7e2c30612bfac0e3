#!/usr/bin/env bash
# Test on a Slurm cluster.
#   bash tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [arguments]

set -e
[ $# -ge 4 ] || { sed -n 2,3p "$0"; exit 2; }
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
CHECKPOINT=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
PYTHON=${PYTHON:-python}
TOOLS=$(cd "$(dirname "$0")" && pwd -P)
export MASTER_PORT=${MASTER_PORT:-$((12000 + RANDOM % 20000))}

set -x
# shellcheck disable=SC2086
PYTHONPATH="$TOOLS/..:$PYTHONPATH" exec srun -p "$PARTITION" \
    --job-name="$JOB_NAME" --gres=gpu:"$GPUS_PER_NODE" --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "$PYTHON" -u "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" \
    --launcher slurm "${@:5}"
