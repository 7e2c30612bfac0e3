"""From frames of windows to features of a grid: all handling of clips.

A localizer works on windows. Most backbones take clips of a few frames, and
those of images single frames. :class:`VideoEncoder` joins the two.
"""
import functools
import inspect
from typing import Any, Callable, Optional, Protocol

from mmblockdrop.utils.messages import require_choice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLINGS = ('mean', 'concat')
#: Two clips are independent if their features, encoded together and apart,
#: differ by at most this share of the largest one.
TOLERANCE = 1e-4


class ClipCache(Protocol):
    """Keeps features of clips, see :attr:`VideoEncoder.clip_cache`."""

    def encode(self, clips: Tensor, encode: Callable[[Tensor], Tensor],
               independent: Callable[[], bool]) -> Tensor:
        """Features of clips, some of them known.

        Args:
            clips: All clips of a batch of windows, [N, C, t, H, W].
            encode: Encodes clips.
            independent: Whether a clip has the same features among others;
                where it has not, all clips must be encoded together.

        Returns:
            What ``encode`` returns for all clips, [N, C', t'].
        """


class VideoEncoder:
    """Encodes windows of frames with a backbone that takes clips.

    A window is cut into clips, the backbone encodes them, and what it returns
    is pooled over space and joined in time. This is no module: a localizer
    holds the backbone itself and hands it over with every call, so parameters
    keep the names ``backbone.*``.

    A backbone class may declare by ``clip_independent`` whether the features
    of a clip are the same whatever is encoded with it. If its ``forward`` has
    an argument ``clips_per_window``, it is given the number of consecutive
    clips that belong to one window, and always whole windows.

    Args:
        num_steps: T, steps of the feature grid of a window.
        clip_frames: Frames of a clip; must divide those of a window.
        clip_chunk: Clips the backbone sees at once where no gradients are
            computed, None for all. A backbone that declares its clips to
            depend on each other is given whole windows.
        pooling: How the map of a clip becomes one vector per time: 'mean' over
            space, or 'concat', which keeps the places apart as channels.
        frame_wise: Whether the backbone takes images [N, 3, H, W]; each frame
            is then a clip.

    Attributes:
        clip_cache: Keeps features of clips from batch to batch, such as
            :class:`~mmblockdrop.inference.clip_cache.ClipMemory`. Defaults to
            None.

    Raises:
        ValueError: ``pooling`` is unknown.
    """

    def __init__(self,
                 num_steps: int,
                 clip_frames: int = 16,
                 clip_chunk: Optional[int] = None,
                 pooling: str = 'mean',
                 frame_wise: bool = False) -> None:
        require_choice('model.pooling', pooling, POOLINGS)
        self.num_steps = num_steps
        self.clip_frames = 1 if frame_wise else clip_frames
        self.clip_chunk = clip_chunk
        self.pooling = pooling
        self.frame_wise = frame_wise
        self.clip_cache: Optional[ClipCache] = None

    def __call__(self, backbone: nn.Module, frames: Tensor) -> Tensor:
        """Encode windows.

        Args:
            backbone: Maps clips [N, 3, t, H, W] to maps [N, C, t', h, w],
                sequences [N, C, t'] or vectors [N, C]; of several outputs the
                last one counts.
            frames: Normalized windows [B, 1, 3, F, H, W] or [B, 3, F, H, W].

        Returns:
            Features [B, C, T], or [B, C * h * w, T] with 'concat', linearly
            interpolated in time, float32.

        Raises:
            ValueError: The frames cannot be cut into clips, or the backbone
                returns another number of axes.
        """
        clips = split_clips(frames, self.clip_frames)
        per_window = len(clips) // len(frames)

        def encode(part: Tensor) -> Tensor:
            """Features of all clips, or of some that are independent."""
            count = per_window if len(part) == len(clips) else 1
            return self._encode(backbone, part, count)

        if self.clip_cache is None:
            feats = encode(clips)
        else:
            feats = self.clip_cache.encode(
                clips, encode, lambda: self.independent(backbone, clips))
        return resample(join_clips(feats, len(frames)), self.num_steps)

    def independent(self, backbone: nn.Module, clips: Tensor) -> bool:
        """Whether the features of a clip depend on that clip alone.

        A backbone that does not declare it encodes two clips of noise,
        together and apart, and the features are compared.

        Args:
            backbone: The backbone, as it is used.
            clips: Clips of the size it is given, [N, 3, t, H, W].

        Returns:
            Also False if the backbone fails on one or two clips.
        """
        declared = declared_independence(backbone)
        if declared is not None:
            return declared
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, *clips.shape[1:], generator=generator)
        noise = noise.to(clips)
        try:
            with torch.no_grad(), torch.autocast(
                    clips.device.type, enabled=False):
                apart = torch.cat([
                    self._encode(backbone, clip, 1) for clip in noise.split(1)
                ])
                together = self._encode(backbone, noise, 2)
        except Exception:  # a foreign backbone may need more than one clip
            return False
        gap = (together - apart).abs().max()
        return bool(gap <= TOLERANCE * together.abs().max())

    def _encode(self, backbone: nn.Module, clips: Tensor,
                per_window: int) -> Tensor:
        """Pooled features [N, C, t'] of clips, a chunk at a time."""
        whole = takes_windows(type(backbone).forward)
        settings = dict(clips_per_window=per_window) if whole else {}
        parts = [clips]
        if self.clip_chunk and not torch.is_grad_enabled():
            size = self.clip_chunk
            if whole or declared_independence(backbone) is False:
                size = max(size // per_window, 1) * per_window
            parts = list(clips.split(size))
        if self.frame_wise:
            parts = [part.squeeze(2) for part in parts]
        feats = [self._pool(backbone(part, **settings)) for part in parts]
        return feats[0] if len(feats) == 1 else torch.cat(feats)

    def _pool(self, feats: Any) -> Tensor:
        """What a backbone returns, without space: [N, C, t'], float32."""
        if isinstance(feats, (tuple, list)):
            feats = feats[-1]
        if self.frame_wise and feats.dim() == 4:
            feats = feats.unsqueeze(2)
        if feats.dim() not in (2, 3, 5):
            raise ValueError(
                f'model.backbone returned shape {tuple(feats.shape)}, expected'
                ' [N, C, t, h, w], [N, C, t] or [N, C] (mmaction ViTs: set '
                'model.backbone.return_feat_map=True)')
        feats = feats.float()
        if feats.dim() == 2:
            return feats.unsqueeze(-1)
        if feats.dim() == 3:
            return feats
        if self.pooling == 'concat':
            return feats.permute(0, 1, 3, 4, 2).flatten(1, 3)
        return feats.mean((-2, -1))


def declared_independence(backbone: nn.Module) -> Optional[bool]:
    """What a backbone declares about clips that are encoded together.

    Args:
        backbone: Any backbone.

    Returns:
        Its attribute ``clip_independent``: True if a clip has the same
        features among any others, False if it may not. False if it uses the
        statistics of a batch. None if it declares nothing, also if a subclass
        has a ``forward`` of its own and does not repeat the declaration.
    """
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
                module.training or module.running_mean is None):
            return False
    if 'clip_independent' in vars(backbone):
        return backbone.clip_independent
    for base in type(backbone).__mro__:
        if 'clip_independent' in vars(base):
            return backbone.clip_independent
        if 'forward' in vars(base):
            break
    return None


@functools.lru_cache(maxsize=None)
def takes_windows(forward: Callable) -> bool:
    """Whether a backbone asks for the number of clips of a window."""
    return 'clips_per_window' in inspect.signature(forward).parameters


def split_clips(frames: Tensor, clip_frames: int) -> Tensor:
    """Cut windows into consecutive clips.

    Args:
        frames: Windows [B, 1, 3, F, H, W] or [B, 3, F, H, W].
        clip_frames: Frames per clip; must divide F.

    Returns:
        Clips [B * F / clip_frames, 3, clip_frames, H, W], a window's clips
        next to each other.

    Raises:
        ValueError: The shape is another one or F is not divisible.
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


def join_clips(feats: Tensor, batch_size: int) -> Tensor:
    """Put the features of a window's clips one after another in time.

    Args:
        feats: Features of clips [B * n, C, t].
        batch_size: B.

    Returns:
        Features of windows [B, C, n * t].
    """
    return feats.unflatten(0, (batch_size, -1)).transpose(1, 2).flatten(2)


def resample(feats: Tensor, num_steps: int) -> Tensor:
    """Interpolate features linearly in time.

    Args:
        feats: Features [B, C, T'].
        num_steps: T.

    Returns:
        Features [B, C, T].
    """
    if feats.size(-1) == num_steps:
        return feats
    return F.interpolate(feats, num_steps, mode='linear', align_corners=False)
