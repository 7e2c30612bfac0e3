"""One video of the run as a picture, when training ends."""
from pathlib import Path
from typing import Any, Optional

from mmblockdrop.apis import draw_localization, of_classes, read_actions
from mmblockdrop.registry import HOOKS

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from .localize import localize_video


@HOOKS.register_module()
class TimelineHook(Hook):
    """Draw what teacher and student find in a video, beside the truth.

    After training, ``timeline.png`` in the work directory shows the actions
    of one video below its frames: annotated, found by the teacher, found by
    the student. A model without teacher is drawn alone. If the picture
    cannot be made, for instance because the config reads features, the log
    says why and the run ends as it would.

    Args:
        video: The video. Defaults to None, the first of the validation videos.
        score_thr: Segments of a lower score are left out. Defaults to 0.3.
    """
    priority = 'VERY_LOW'

    def __init__(self,
                 video: Optional[str] = None,
                 score_thr: float = 0.3) -> None:
        self.video = video
        self.score_thr = score_thr

    def after_train(self, runner: Runner) -> None:
        """Draw, in the first process.

        Args:
            runner: The runner, at the end of training.
        """
        if not is_main_process():
            return
        try:
            path = self._draw(runner)
        except (AttributeError, IndexError, KeyError, OSError, RuntimeError,
                ValueError) as error:
            runner.logger.warning(
                f'TimelineHook draws no picture: {error!r}')
            return
        runner.logger.info(f'A video as a picture: {path}')

    def _draw(self, runner: Runner) -> Path:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        dataset = runner.val_dataloader.dataset
        video = self.video or dataset.filenames[0]
        try:
            truth = read_actions(dataset.ann_file, video)
        except ValueError:  # a video of one's own has no annotations
            truth = None
        else:
            truth = of_classes(truth, dataset.metainfo['classes'])
        found = {
            name: self._localize(getattr(model, name, None), runner, video)
            for name in ('student', 'teacher')
        }
        student = found['student'] or self._localize(model, runner, video)
        return draw_localization(
            student,
            Path(runner.work_dir) / 'timeline.png',
            teacher=found['teacher'],
            truth=truth,
            name='compressed' if found['teacher'] else 'localized')

    def _localize(self, model: Optional[nn.Module], runner: Runner,
                  video: str) -> Any:
        if model is None:
            return None
        # Suppressed as in validation, whose videos and classes these are.
        model.cfg = Config(
            {k: v for k, v in runner.cfg.items() if k != 'test_evaluator'})
        model.dataset_meta = runner.val_dataloader.dataset.metainfo
        was_training = model.training
        model.eval()
        try:
            return localize_video(model, video, self.score_thr)
        finally:
            model.train(was_training)
