"""Let ``--launcher pytorch`` run with gloo on machines without CUDA.

Defect: mmengine 0.10.7 calls ``torch.cuda.set_device`` before it creates the
process group, whatever the backend, and wraps the model with
``device_ids=[LOCAL_RANK]``, which DistributedDataParallel rejects for a model
on the CPU.

Patch: without CUDA (or another accelerator that mmengine knows) the process
group is created directly, with gloo where the config says nccl; and a model
whose parameters are all on the CPU is wrapped without ``device_ids``.

Unnecessary with: a release of mmengine that asks for CUDA before using it.
Neither 0.10.7 nor 0.11.0rc0 does.
"""
import functools
import logging
from types import ModuleType

from .importing import after_import


def _init_without_cuda(utils: ModuleType) -> None:
    """Wrap the launcher's initialization."""
    init_on_gpu = utils._init_dist_pytorch

    @functools.wraps(init_on_gpu)
    def _init_dist_pytorch(backend, init_backend='torch', **kwargs) -> None:
        import torch
        from mmengine.logging import print_log
        if (init_backend != 'torch' or torch.cuda.is_available()
                or utils.is_mlu_available() or utils.is_npu_available()
                or utils.is_musa_available()):
            return init_on_gpu(backend, init_backend=init_backend, **kwargs)
        if backend == 'nccl':
            print_log(
                'No CUDA device: using gloo instead of nccl',
                logger='current',
                level=logging.WARNING)
            backend = 'gloo'
        torch.distributed.init_process_group(backend=backend, **kwargs)

    utils._init_dist_pytorch = _init_dist_pytorch


def _wrap_on_cpu(distributed: ModuleType) -> None:
    """Drop ``device_ids`` for models on the CPU."""
    construct = distributed.MMDistributedDataParallel.__init__

    @functools.wraps(construct)
    def __init__(self, module, *args, **kwargs) -> None:
        if all(param.device.type == 'cpu' for param in module.parameters()):
            kwargs.pop('device_ids', None)
        construct(self, module, *args, **kwargs)

    distributed.MMDistributedDataParallel.__init__ = __init__


def patch() -> None:
    """Wait for mmengine's launcher and model wrapper."""
    after_import('mmengine.dist.utils', _init_without_cuda)
    after_import('mmengine.model.wrappers.distributed', _wrap_on_cpu)
