"""Frames of a window to clips for the encoder, and back to a sequence."""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_clips(frames: Tensor, clip_frames: int) -> Tensor:
    """Cut windows into consecutive clips.

    Args:
        frames: Windows [B, 1, 3, F, H, W] or [B, 3, F, H, W].
        clip_frames: Frames per clip; must divide F.

    Returns:
        Clips [B * F / clip_frames, 3, clip_frames, H, W], a window's clips
        next to each other.

    Raises:
        ValueError: If the shape is another one or F is not divisible.
    """
    if frames.dim() == 6 and frames.size(1) == 1:
        frames = frames.squeeze(1)
    if frames.dim() != 5:
        raise ValueError(
            f'frames have shape {tuple(frames.shape)}, expected [B, 1, 3, F, '
            'H, W]: one window per sample, format_shape=NCTHW in '
            'model.data_preprocessor. For features set model.backbone=None')
    total = frames.size(2)
    if total % clip_frames:
        near = sorted((n for n in range(1, total + 1) if not total % n),
                      key=lambda n: abs(n - clip_frames))[0]
        raise ValueError(
            f'model.clip_frames={clip_frames} does not divide the {total} '
            f'frames of a window; the nearest number that does is {near}')
    clips = frames.unflatten(2, (total // clip_frames, clip_frames))
    return clips.transpose(1, 2).flatten(0, 1).contiguous()


def join_clips(feats: Tensor,
               batch_size: int,
               window_size: int,
               pooling: str = 'mean') -> Tensor:
    """Pool over space and put the clips of a window one after another.

    Args:
        feats: Map [N, C, t', h, w], sequence [N, C, t'] or vector [N, C].
        batch_size: B; N is a multiple of it.
        window_size: T, steps of the result.
        pooling: 'mean' averages over space; 'concat' keeps the places apart,
            side by side as channels.

    Returns:
        Features [B, C, T], or [B, C * h * w, T] with 'concat', interpolated
        linearly in time, float32.

    Raises:
        ValueError: If the features have another number of axes.
    """
    if feats.dim() not in (2, 3, 5):
        raise ValueError(
            f'model.backbone returned shape {tuple(feats.shape)}, expected '
            '[N, C, t, h, w], [N, C, t] or [N, C] (mmaction ViTs: set '
            'model.backbone.return_feat_map=True)')
    feats = feats.float()
    if feats.dim() == 5 and pooling == 'concat':
        feats = feats.permute(0, 1, 3, 4, 2).flatten(1, 3)
    elif feats.dim() == 5:
        feats = feats.mean((-2, -1))
    if feats.dim() == 2:
        feats = feats.unsqueeze(-1)
    feats = feats.unflatten(0, (batch_size, -1)).transpose(1, 2).flatten(2)
    if feats.size(-1) == window_size:
        return feats
    return F.interpolate(
        feats, window_size, mode='linear', align_corners=False)


def encode_clips(encoder: nn.Module, clips: Tensor,
                 chunk: Optional[int] = None) -> Tensor:
    """Features of clips.

    Args:
        encoder: Maps clips to a tensor, or to several of which the last
            counts.
        clips: [N, 3, t, H, W], or images [N, 3, H, W].
        chunk: Clips the encoder sees at once where no gradients are
            computed, None for all.

    Returns:
        What the encoder returns for all clips, [N, ...].
    """
    parts = [clips]
    if chunk and not torch.is_grad_enabled():
        parts = list(clips.split(chunk))
    feats = [encoder(part) for part in parts]
    feats = [x[-1] if isinstance(x, (tuple, list)) else x for x in feats]
    return feats[0] if len(feats) == 1 else torch.cat(feats)
