"""Encode clips that several windows show only once."""
import hashlib
from contextlib import ExitStack, contextmanager
from typing import (TYPE_CHECKING, Any, Callable, Dict, Iterator, List,
                    Optional, Sequence)

from mmblockdrop.registry import HOOKS

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

if TYPE_CHECKING:
    from mmblockdrop.backbones.base import VideoEncoder


def encoder_of(model: nn.Module) -> 'Optional[VideoEncoder]':
    """The video encoder of a localizer.

    Args:
        model: Any model.

    Returns:
        Its attribute ``encoder``; None where there is none, or no backbone.
    """
    # Late: the backbones import mmaction2, which takes half a second.
    from mmblockdrop.backbones.base import VideoEncoder
    encoder = getattr(model, 'encoder', None)
    if isinstance(encoder, VideoEncoder) and getattr(model, 'backbone',
                                                     None) is not None:
        return encoder
    return None


def clip_keys(frames: Tensor, clip_frames: int) -> List[bytes]:
    """Fingerprint of every clip of a window.

    Clips are compared by what they show: windows that overlap share those
    that lie on the same grid, and so do repeated or black frames.

    Args:
        frames: Decoded frames [1, 3, F, H, W].
        clip_frames: Frames per clip.

    Returns:
        One for each of the F / clip_frames clips; empty if F is not divisible
        or there are no frames.
    """
    if frames.dim() != 5 or frames.size(2) % clip_frames:
        return []
    keys = []
    for clip in frames.split(clip_frames, dim=2):
        clip = clip.contiguous()
        digest = hashlib.blake2b(
            repr((clip.shape, clip.dtype)).encode(), digest_size=20)
        digest.update(clip.flatten().view(torch.uint8).numpy().data)
        keys.append(digest.digest())
    return keys


class ClipMemory:
    """Keeps the features of clips from one batch of windows to the next.

    It plugs into a :class:`VideoEncoder` as its ``clip_cache``. Where the
    features of a clip depend on the clips beside it, nothing is reused; see
    :meth:`VideoEncoder.independent`, which is called once per memory.

    Args:
        encoder: Encoder of the localizer, in evaluation mode; None does
            nothing.

    Attributes:
        encoded: Number of clips that were encoded.
        reused: Number of clips whose features were known.
        independent: Whether clips may be reused; None before the first batch.
    """

    def __init__(self, encoder: 'Optional[VideoEncoder]') -> None:
        self.encoder = encoder
        self.encoded = self.reused = 0
        self.independent: Optional[bool] = None
        self._known: Dict[bytes, Tensor] = {}
        self._keys: List[bytes] = []

    @contextmanager
    def serving(self, windows: Sequence[List[bytes]]) -> Iterator[None]:
        """Serve the encoder while one batch is computed.

        Args:
            windows: :func:`clip_keys` of each window of the batch. Clips of
                earlier batches are forgotten afterwards unless they are among
                them.
        """
        if self.encoder is None or not all(windows):
            yield
            return
        keys = [key for window in windows for key in window]
        self._keys = keys
        self.encoder.clip_cache = self
        try:
            yield
        finally:
            self.encoder.clip_cache = None
            self._known = {
                key: self._known[key]
                for key in keys if key in self._known
            }

    def encode(self, clips: Tensor, encode: Callable[[Tensor], Tensor],
               independent: Callable[[], bool]) -> Tensor:
        """Features of the next clips of the batch, computed once per key.

        Args:
            clips: Normalized clips [N, 3, t, H, W].
            encode: Encodes clips.
            independent: See :class:`~mmblockdrop.backbones.base.ClipCache`.

        Returns:
            Features of all clips [N, C, t'].
        """
        if self.independent is None:
            self.independent = independent()
        keys, self._keys = self._keys[:len(clips)], self._keys[len(clips):]
        if not self.independent or len(keys) != len(clips):
            return encode(clips)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = sorted(i for key, i in first.items() if key not in self._known)
        self.encoded += len(new)
        self.reused += len(keys) - len(new)
        if new:
            part = clips if len(new) == len(clips) else clips[new]
            for i, feats in zip(new, encode(part)):
                self._known[keys[i]] = feats
        return torch.stack([self._known[key] for key in keys])


@HOOKS.register_module()
class ReuseClipsHook(Hook):
    """Encode a clip once where several windows show it.

    The windows of a video overlap. In validation and testing, clips of a
    batch that repeat one of the same batch or of the batch before are not
    encoded again; which clips are the same is told by their decoded frames.
    This helps where the distance of two windows is a multiple of a clip and
    one process takes the windows in order: several processes take them in
    turns, so neighbours rarely meet. Localizers without a ``VideoEncoder``
    are left alone, and so are backbones whose clips depend on each other.
    """
    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._memory = ClipMemory(None)
        self._open = ExitStack()

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget what was encoded with other weights.

        Args:
            runner: The runner.
        """
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        self._memory = ClipMemory(
            encoder_of(getattr(model, 'student', model)))

    def before_val_iter(self,
                        runner: Runner,
                        batch_idx: int,
                        data_batch: Any = None) -> None:
        """Serve the encoder for this batch.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: The windows, as loaded.
        """
        encoder = self._memory.encoder
        if encoder is None or self._memory.independent is False:
            return
        keys = [clip_keys(x, encoder.clip_frames)
                for x in data_batch['inputs']]
        self._open.enter_context(self._memory.serving(keys))

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any
                       ) -> None:
        """Leave the encoder as it was.

        Args:
            runner: The runner.
            *args: What mmengine passes for the batch.
            **kwargs: The same.
        """
        self._open.close()

    def after_val_epoch(self, runner: Runner, *args: Any, **kwargs: Any
                        ) -> None:
        """Log how many clips were reused, and forget them.

        Args:
            runner: The runner.
            *args: What mmengine passes for the epoch.
            **kwargs: The same.
        """
        memory, self._memory = self._memory, ClipMemory(None)
        if memory.reused:
            runner.logger.info(
                f'{memory.reused} of {memory.reused + memory.encoded} clips '
                'came again and were encoded once')
        elif memory.independent is False:
            runner.logger.info(
                'No clip was reused: its features may depend on the clips '
                'beside it (see clip_independent)')

    before_test_epoch = before_val_epoch
    before_test_iter = before_val_iter
    after_test_iter = after_val_iter
    after_test_epoch = after_val_epoch
