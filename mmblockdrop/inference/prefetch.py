"""Work ahead in a thread, and remember clips that come again."""
import hashlib
import queue
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence

import torch
from mmengine.logging import print_log
from mmengine.utils import ProgressBar
from torch import Tensor, nn

#: A bar is shown if the rest takes longer than this many seconds.
PATIENCE = 5.
_END = object()


def ahead(items: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """Produce items in a thread while earlier ones are used.

    Args:
        items: What is produced, such as decoded windows.
        depth: How many may wait; 0 works without thread.

    Yields:
        The items in order. An exception of ``items`` is raised where its item
        would come.
    """
    if depth < 1:
        yield from items
        return
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(value: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # raised again by the reader
            put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


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
    """Lets an encoder of clips skip those it has just encoded.

    The encoder must treat every clip apart, as transformers without batch
    statistics do in evaluation mode.

    Args:
        model: Localizer with ``backbone`` and ``pooling``.

    Attributes:
        encoded: Clips the encoder has seen.
        reused: Clips it was spared.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.encoded = self.reused = 0
        self._known: Dict[bytes, Tensor] = {}

    @contextmanager
    def listening(self, windows: Sequence[List[bytes]]) -> Iterator[None]:
        """Answer for the encoder while one batch is computed.

        Args:
            windows: :func:`clip_keys` of each window of the batch. Clips of
                earlier batches are forgotten afterwards unless they stand
                here.
        """
        backbone = getattr(self.model, 'backbone', None)
        keys = [key for window in windows for key in window]
        if backbone is None or not all(windows):
            yield
            return
        remembering = _Remembering(backbone, self, keys)
        self.model._modules['backbone'] = remembering
        try:
            yield
        finally:
            self.model._modules['backbone'] = backbone
            self._known = {key: self._known[key] for key in keys
                           if key in self._known}

    def encode(self, backbone: nn.Module, clips: Tensor,
               keys: List[bytes]) -> Tensor:
        """Features of clips, computed once for each key.

        Args:
            backbone: The encoder.
            clips: Normalized clips [N, 3, t, H, W].
            keys: Their keys, N.

        Returns:
            What the encoder returns for them; a map averaged over space
            already if the localizer does that.
        """
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = sorted(i for key, i in first.items() if key not in self._known)
        self.encoded += len(new)
        self.reused += len(keys) - len(new)
        if new:
            part = clips if len(new) == len(clips) else clips[new]
            for i, feats in zip(new, self._pooled(backbone(part))):
                self._known[keys[i]] = feats
        return torch.stack([self._known[key] for key in keys])

    def _pooled(self, feats: Any) -> Tensor:
        if isinstance(feats, (tuple, list)):
            feats = feats[-1]
        if feats.dim() == 5 and getattr(self.model, 'pooling', '') == 'mean':
            return feats.float().mean((-2, -1))
        return feats


class _Remembering(nn.Module):
    """Stands before the encoder for the duration of one batch."""

    def __init__(self, backbone: nn.Module, memory: ClipMemory,
                 keys: List[bytes]) -> None:
        super().__init__()
        self.backbone, self.memory = backbone, memory
        self.keys = list(keys)

    def forward(self, clips: Tensor) -> Tensor:
        """Take the next clips of the batch."""
        mine, self.keys = self.keys[:len(clips)], self.keys[len(clips):]
        if len(mine) != len(clips):  # cut otherwise than the keys
            return self.backbone(clips)
        return self.memory.encode(self.backbone, clips, mine)


class WindowBar:
    """A bar over the windows of a video that takes a while.

    Args:
        wanted: Whether it may be shown at all.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.bar: Optional[ProgressBar] = None
        self.video: Any = None

    def update(self, batch: Sequence[Any]) -> None:
        """Note that windows are done.

        Args:
            batch: Windows with ``video``, ``index`` and ``count``.
        """
        window = batch[-1]
        if window.video != self.video:
            self.close()
            self.video, self.began = window.video, time.perf_counter()
            self.first = window.index
            return
        if self.bar is not None:
            for _ in range(min(len(batch), window.index - self.first)):
                self.bar.update()
            return
        done = window.index - self.first
        spent = time.perf_counter() - self.began
        rest = window.count - 1 - window.index
        if self.wanted and done and spent / done * rest > PATIENCE:
            print_log(f'{window.video}: {window.count} windows',
                      logger='current')
            self.bar = ProgressBar(rest)

    def close(self) -> None:
        """End the line of the bar."""
        if self.bar is not None:
            self.bar.file.write('\n')
        self.bar = None
