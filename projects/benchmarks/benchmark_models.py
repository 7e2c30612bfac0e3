"""Untrained localizers of several sizes for the benchmarks."""
from typing import Any, Dict, Sequence

from mmblockdrop.registry import MODELS

import torch
from benchmark_page import ROOT
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

#: The VideoMAE-S detector of the configs.
VIDEOMAE_S = ROOT / 'configs/_base_/models/actionformer_videomae-small.py'
#: Settings of its encoder for training; the trained one is merged.
TRAINING = ('lora', 'trainable', 'with_cp', 'pretrained')
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
        size: One of :data:`SIZES`.
        frames: Frames of a window, a step each.
        pixels: Side of a frame.
        clip_frames: Frames of a clip.
        num_classes: Classes of actions.
        **encoder: Further arguments of the encoder.

    Returns:
        Config. Small encoders have a small pyramid.
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
        frames: Frames of a window.
        pixels: Side of a frame.

    Returns:
        On the GPU if there is one.
    """
    clip = next(n for n in range(16, 0, -2) if frames % n == 0)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(localizer_config('small', frames, pixels, clip, 1), clip_chunk=8))
    model.dataset_meta = dict(classes=['action'])
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def trained_detector(frames: int, pixels: int) -> Config:
    """Config of the VideoMAE-S detector as training leaves it.

    Args:
        frames: Frames and steps of a window.
        pixels: Side of a frame.

    Returns:
        The model, without what is for training only.
    """
    cfg = Config.fromfile(str(VIDEOMAE_S)).model
    cfg.window_size = cfg.projection.max_seq_len = frames
    cfg.backbone.img_size = pixels
    for key in TRAINING:
        cfg.backbone.pop(key, None)
    return cfg


def narrow(cfg: Config, width: int, channels: int = 128) -> Config:
    """Make a detector narrow, for quick looks.

    Args:
        cfg: Config of the model; is changed.
        width: Width of the transformer, heads of 64 each.
        channels: Width of what is behind it.

    Returns:
        It.
    """
    cfg.backbone.update(embed_dims=width, num_heads=width // 64)
    cfg.projection.update(in_channels=width, out_channels=channels)
    cfg.neck.update(in_channels=channels, out_channels=channels)
    cfg.head.update(in_channels=channels)
    return cfg


def noise_windows(size: int, frames: int, pixels: int,
                  segments: Sequence[Sequence[float]], device: str
                  ) -> Dict[str, Any]:
    """Windows of noise, as the localizer takes them.

    Args:
        size: Windows.
        frames: Frames and steps of a window.
        pixels: Side of a frame.
        segments: Start and end of the actions in steps; their labels are 0, 1,
            ...
        device: Where they lie.

    Returns:
        ``inputs`` and ``data_samples``.
    """
    samples = []
    for _ in range(size):
        sample = ActionDataSample(
            metainfo=dict(valid_steps=frames, window_size=frames))
        sample.gt_instances = InstanceData(
            segments=torch.tensor(segments),
            labels=torch.arange(len(segments))).to(device)
        samples.append(sample)
    inputs = torch.randn(size, 1, 3, frames, pixels, pixels, device=device)
    return dict(inputs=inputs, data_samples=samples)


def quiet() -> None:
    """Keep mmengine from talking into the tables."""
    init_default_scope('mmaction')
    MMLogger.get_instance('mmengine', log_level='ERROR')
