"""Let torchvision from PyPI be imported beside a CPU build of torch.

Defect: torchvision's wheel on PyPI is compiled for CUDA. Beside a CPU build of
torch its operators cannot be loaded, which it tolerates, but then
``torchvision/_meta_registrations.py`` registers shapes for two operators,
``nms`` and ``qnms``, that do not exist: ``operator torchvision::nms does not
exist`` (pytorch/vision issue 9085). mmaction2 imports torchvision.

Patch: between the two steps, define the schema of the two operators if they
are absent. Calling them still fails, since there is no kernel.

Unnecessary with: torchvision installed from PyTorch's CPU index, or a
torchvision that guards both registrations as it guards its others (0.29 does
not).
"""
from types import ModuleType

from .importing import after_import

ARGUMENTS = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
OPERATORS = ('nms', 'qnms')


def _define_absent(extension: ModuleType) -> None:
    """Define the operators that torchvision could not load."""
    import torch
    if extension._has_ops():
        return
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + ARGUMENTS)
    # The definitions live as long as the library object.
    extension._mmblockdrop_library = library  # type: ignore[attr-defined]


def patch() -> None:
    """Wait for the module that loads the operators."""
    after_import('torchvision.extension', _define_absent)
