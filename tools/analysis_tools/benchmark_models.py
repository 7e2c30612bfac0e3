"""Untrained localizers of several sizes for the benchmarks."""
from typing import Any, Dict

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from mmblockdrop.registry import MODELS

#: Encoders of VideoMAE, and two for quick looks.
SIZES = dict(
    tiny=dict(embed_dims=32, depth=3, num_heads=2),
    small=dict(embed_dims=96, depth=4, num_heads=3),
    S=dict(embed_dims=384, depth=12, num_heads=6),
    B=dict(embed_dims=768, depth=12, num_heads=12),
    L=dict(embed_dims=1024, depth=24, num_heads=16))


def localizer_config(size: str,
                     frames: int,
                     pixels: int,
                     clip_frames: int = 16,
                     num_classes: int = 20,
                     **encoder: Any) -> Dict[str, Any]:
    """An ActionFormer behind a video transformer.

    Args:
        size (str): One of :data:`SIZES`.
        frames (int): Frames of a window, a step each.
        pixels (int): Side of a frame.
        clip_frames (int): Frames of a clip.
        num_classes (int): Classes of actions.
        **encoder: Further arguments of the encoder.

    Returns:
        dict: Config. Small encoders have a small pyramid.
    """
    width = SIZES[size]['embed_dims']
    channels = 512 if width > 100 else width
    return dict(
        type='mmblockdrop.ActionFormer',
        window_size=frames,
        clip_frames=clip_frames,
        data_preprocessor=dict(
            type='mmaction.ActionDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            format_shape='NCTHW'),
        backbone=dict(
            SIZES[size],
            type='mmblockdrop.LoRAViT',
            img_size=pixels,
            patch_size=16,
            num_frames=clip_frames,
            qkv_bias=True,
            **encoder),
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=width,
            out_channels=channels,
            arch=(2, 2, 2),
            num_heads=4),
        neck=dict(
            type='mmblockdrop.FPNIdentity',
            in_channels=channels,
            out_channels=channels,
            num_levels=3),
        head=dict(
            type='mmblockdrop.ActionFormerHead',
            num_classes=num_classes,
            in_channels=channels,
            strides=[1, 2, 4]))


def small_localizer(frames: int, pixels: int) -> nn.Module:
    """A localizer of four blocks of width 96 for one class.

    Args:
        frames (int): Frames of a window.
        pixels (int): Side of a frame.

    Returns:
        nn.Module: On the GPU if there is one.
    """
    clip = next(n for n in range(16, 0, -2) if frames % n == 0)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(localizer_config('small', frames, pixels, clip, 1), clip_chunk=8))
    model.dataset_meta = dict(classes=['action'])
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def quiet() -> None:
    """Keep mmengine from talking into the tables."""
    init_default_scope('mmaction')
    MMLogger.get_instance('mmengine', log_level='ERROR')
