"""Mends for the stack as it is published today, one defect per module.

=============== ============================================================
Mend            Defect
=============== ============================================================
``drn``         ``mmaction.models.localizers.drn`` missing from the wheel
``multimodal``  mmaction2's VindLU beside transformers 5, or without timm
``torchvision`` torchvision from PyPI beside a CPU build of torch
``checkpoint``  resume of mmengine's checkpoints on torch >= 2.6
``gloo``        several processes on machines without CUDA
``colorjitter`` mmaction2's ``ColorJitter`` on numpy 2
``vit``         ``pretrained=`` of mmaction2's VideoMAE ViT
``scope``       ``_base_ = 'mmblockdrop::...'`` in configs
=============== ============================================================

Each module says what the defect is and which release makes its mend
unnecessary; ``tests/test_compat`` fails for a mend whose defect is gone. A
mend waits until its target is imported, so importing mmblockdrop costs next to
nothing. ``MMBLOCKDROP_WITHOUT=drn,gloo`` in the environment leaves mends out.
"""
import difflib
import os

from . import (checkpoint, colorjitter, drn, gloo, multimodal, scope,
               torchvision, vit)
from .versions import check_versions

__all__ = ['MENDS', 'apply', 'check_versions']

MENDS = dict(
    drn=drn,
    multimodal=multimodal,
    torchvision=torchvision,
    checkpoint=checkpoint,
    gloo=gloo,
    colorjitter=colorjitter,
    vit=vit,
    scope=scope)

_applied = False


def apply() -> None:
    """Apply every mend, once, except those in ``MMBLOCKDROP_WITHOUT``.

    Raises:
        ValueError: If ``MMBLOCKDROP_WITHOUT`` names a mend that is not there.
    """
    global _applied
    if _applied:
        return
    left_out = [
        name for name in os.environ.get('MMBLOCKDROP_WITHOUT', '').split(',')
        if name
    ]
    for name in left_out:
        if name not in MENDS:
            nearest = difflib.get_close_matches(name, MENDS, 1, 0) or ['drn']
            raise ValueError(
                f'MMBLOCKDROP_WITHOUT names {name!r}, which is no mend; the '
                f'nearest is {nearest[0]!r}, all are {sorted(MENDS)}')
    for name, module in MENDS.items():
        if name not in left_out:
            module.mend()
    _applied = True
