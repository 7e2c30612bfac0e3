#!/usr/bin/env bash
# Test with several processes: one per GPU, or gloo processes without GPU.
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py]

set -e
[ $# -ge 3 ] || { sed -n 2,3p "$0"; exit 2; }
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PYTHON=${PYTHON:-python}
TOOLS=$(cd "$(dirname "$0")" && pwd -P)

set -x
PYTHONPATH="$TOOLS/..:$PYTHONPATH" exec "$PYTHON" -m torch.distributed.run \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" \
    --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
