"""Patches for the stack as it is published today, one defect per module.

=============== ============================================================
Patch           Defect
=============== ============================================================
``drn``         ``mmaction.models.localizers.drn`` missing from the wheel
``multimodal``  transformers imported at start, and failing from 4.56 on
``torchvision`` torchvision from PyPI beside a CPU build of torch
``checkpoint``  resume on torch >= 2.6; code and hostile data in checkpoints
``latest``      a copied work directory resumes from the original
``gloo``        several processes on machines without CUDA
``colorjitter`` mmaction2's ``ColorJitter`` on numpy 2
``vit``         ``pretrained=`` of mmaction2's VideoMAE ViT
``scope``       ``_base_ = 'mmblockdrop::...'`` in configs
=============== ============================================================

Each module says what the defect is and which release makes its patch
unnecessary; ``tests/test_compat`` fails for a patch whose defect is gone. A
patch waits until its target is imported, so importing mmblockdrop costs next
to nothing. ``MMBLOCKDROP_WITHOUT=drn,gloo`` in the environment leaves patches
out.
"""
import difflib
import os
import warnings

from . import (checkpoint, colorjitter, drn, gloo, latest, multimodal, scope,
               torchvision, vit)
from .versions import check_versions

__all__ = ['PATCHES', 'apply', 'check_versions']

PATCHES = dict(
    drn=drn,
    multimodal=multimodal,
    torchvision=torchvision,
    checkpoint=checkpoint,
    latest=latest,
    gloo=gloo,
    colorjitter=colorjitter,
    vit=vit,
    scope=scope)

_applied = False


def apply() -> None:
    """Apply every patch, once, except those in ``MMBLOCKDROP_WITHOUT``.

    Raises:
        ValueError: If ``MMBLOCKDROP_WITHOUT`` names an unknown patch.
    """
    global _applied
    if _applied:
        return
    left_out = [
        name for name in os.environ.get('MMBLOCKDROP_WITHOUT', '').split(',')
        if name
    ]
    for name in left_out:
        if name not in PATCHES:
            nearest = difflib.get_close_matches(name, PATCHES, 1, 0)
            raise ValueError(
                f'MMBLOCKDROP_WITHOUT names {name!r}, which is not a patch; '
                f'the nearest is {nearest[0]!r}, all are {sorted(PATCHES)}')
    for name, module in PATCHES.items():
        if name not in left_out:
            module.patch()
    # mmcv-lite warns of it at import; nothing here uses it.
    warnings.filterwarnings(
        'ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    _applied = True
