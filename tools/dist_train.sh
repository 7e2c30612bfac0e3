#!/usr/bin/env bash
# Train with several processes: one per GPU, or gloo processes without GPU.
#   bash tools/dist_train.sh CONFIG PROCESSES [arguments of train.py]

set -e
[ $# -ge 2 ] || { sed -n 2,3p "$0"; exit 2; }
CONFIG=$1
GPUS=$2
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
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
