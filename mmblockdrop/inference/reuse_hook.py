"""Windows that overlap share the encoder's work, in validation and testing."""
from contextlib import ExitStack
from typing import Any, Optional

from mmblockdrop.registry import HOOKS

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from .prefetch import ClipMemory, clip_keys


@HOOKS.register_module()
class ReuseClipsHook(Hook):
    """Encode a clip once where several windows show it.

    The windows of a video overlap. In validation and testing, clips of a
    batch that repeat one of the same batch or of the batch before are not
    encoded again; which clips are the same is told by their decoded frames.
    This helps where the distance of two windows is a multiple of a clip and
    one process takes the windows in order: several processes take them in
    turns, so neighbours rarely meet. Localizers without an encoder of clips
    are left alone. The encoder must treat every clip by itself, as video
    transformers do.
    """
    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._memory: Optional[ClipMemory] = None
        self._open = ExitStack()

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget what was encoded with other weights.

        Args:
            runner: The runner.
        """
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        self._memory = ClipMemory(getattr(model, 'student', model))

    def before_val_iter(self,
                        runner: Runner,
                        batch_idx: int,
                        data_batch: Any = None) -> None:
        """Answer for the encoder from here on.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: The windows, as loaded.
        """
        model = self._memory.model
        if getattr(model, 'backbone', None) is None or (
                not hasattr(model, 'clip_frames')):
            return
        keys = [clip_keys(x, model.clip_frames) for x in data_batch['inputs']]
        self._open.enter_context(self._memory.listening(keys))

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any
                       ) -> None:
        """Put the encoder back.

        Args:
            runner: The runner.
            *args: What mmengine tells of the batch.
            **kwargs: The same.
        """
        self._open.close()

    def after_val_epoch(self, runner: Runner, *args: Any, **kwargs: Any
                        ) -> None:
        """Say what it was good for, and let the features go.

        Args:
            runner: The runner.
            *args: What mmengine tells of the epoch.
            **kwargs: The same.
        """
        memory, self._memory = self._memory, None
        if memory is not None and memory.reused:
            runner.logger.info(
                f'{memory.reused} of {memory.reused + memory.encoded} clips '
                'came again and were encoded once')

    before_test_epoch = before_val_epoch
    before_test_iter = before_val_iter
    after_test_iter = after_val_iter
    after_test_epoch = after_val_epoch
