"""A preview: how short a localizer can get by repair alone."""
import copy
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from mmblockdrop.compression import block_tensor
from mmblockdrop.registry import LOOPS
from mmblockdrop.report import write_report
from mmblockdrop.report.preview import write_preview
from mmblockdrop.scorers.feature_error import feature_gap, features_path
from mmblockdrop.scorers.partial_scores import digest
from mmblockdrop.utils.io import PathLike, read_json, write_json
from mmblockdrop.utils.messages import require_whole
from mmblockdrop.utils.progress import with_progress
from mmblockdrop.utils.recorder import record

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.runner import Runner
from torch import Tensor, nn

from .evaluator import ModelEvaluator
from .hook import find_hook
from .loop import DistillationLoop
from .rebuild import localizer_of, plain_model
from .resume import RECORD

#: Beside the record: what the preview was made from.
KEY = 'key.json'
#: Most bytes of the teacher's features that are kept between two depths.
KEPT_BYTES = 1 << 30


class PreviewEvaluator(ModelEvaluator):
    """Also measures how far the encoder's features are from the teacher's.

    Attributes:
        labelled: Whether there is a metric.
    """

    labelled = True

    def __init__(self,
                 runner: Runner,
                 score_dataloader: Optional[dict] = None) -> None:
        super().__init__(runner, score_dataloader)
        self._features: Dict[int, Tensor] = {}
        self._bytes = 0
        #: What :meth:`validate` gave last.
        self.found: Dict[str, Any] = {}

    def validate(self) -> Dict[str, float]:
        """Metrics, and the error of the features, on the validation data.

        Returns:
            All metrics and ``feature_error``, the squared error as a share of
            the variance of the teacher's features; without labels that alone.
        """
        model = plain_model(self.runner.model)
        student, teacher = localizer_of(model), model.uncompressed()
        structure = find_hook(self.runner).structure(self.runner)
        encoder = features_path(structure)
        loader = self.runner.val_loop.dataloader
        evaluator = copy.deepcopy(self.keep_evaluator())
        sums = torch.zeros(2, dtype=torch.float64)
        model.eval()
        with torch.no_grad():
            for place, batch in enumerate(with_progress(loader)):
                with record(student, [encoder]) as found:
                    if self.labelled:
                        evaluator.process(model.val_step(batch), batch)
                    else:
                        student(
                            **model.data_preprocessor(batch, False),
                            mode='tensor')
                sums += torch.tensor(
                    feature_gap(
                        block_tensor(found[encoder]),
                        self._of_teacher(teacher, encoder, place, batch)),
                    dtype=torch.float64)
        all_reduce(sums)
        self.found = dict(feature_error=(sums[0] / sums[1]).item())
        if self.labelled:
            self.found.update(evaluator.evaluate(len(loader.dataset)))
        return self.found

    def _of_teacher(self, teacher: nn.Module, encoder: str, place: int,
                    batch: Any) -> Tensor:
        """Features of the teacher, kept as long as there is room."""
        if place in self._features:
            return self._features[place]
        model = plain_model(self.runner.model)
        with record(teacher, [encoder]) as found:
            teacher(**model.data_preprocessor(batch, False), mode='tensor')
        features = block_tensor(found[encoder])
        self._bytes += features.numel() * features.element_size()
        if self._bytes <= KEPT_BYTES:
            self._features[place] = features.cpu()
        return features


@LOOPS.register_module()
class PreviewLoop(DistillationLoop):
    """Drops and repairs block after block, and measures each depth.

    A run of :class:`~.loop.DistillationLoop` without epochs: candidates are
    scored by the error of the features, the best one goes, and the rest is
    repaired in closed form. For each depth the metric and the error of the
    features on the validation data, the cost, and the latency in turn with the
    uncompressed model are measured, and the model is written as
    ``round_<n>.pth``. A run that was interrupted goes on by itself if model
    and data are the same, and begins again if not.

    Args:
        runner: The runner.
        dataloader: ``train_dataloader``; nothing is trained.
        until: Blocks that remain in the end. Defaults to 2.
        drops: Blocks to drop, a number or a share, in its place.
        budget: Ends the run at the first depth that meets it, see
            :class:`~.stopping.Stopping`.
        out_dir: Where ``preview.json``, ``preview.md`` and ``preview.png`` go.
            Defaults to the work directory.
        labelled: Whether validation has labels. Without, the metric is
            ``feature_error``.
        **settings: ``metric``, ``higher_is_better``, ``scorer``, ``repair``,
            ``protect`` and ``score_dataloader`` of ``DistillationLoop``.

    Raises:
        ValueError: ``until`` is no less than the number of blocks.
    """

    evaluator_class = PreviewEvaluator

    def __init__(self,
                 runner: Runner,
                 dataloader: Any,
                 until: Optional[int] = None,
                 drops: Union[int, str, None] = None,
                 budget: Optional[dict] = None,
                 out_dir: Optional[PathLike] = None,
                 labelled: bool = True,
                 **settings: Any) -> None:
        structure = find_hook(runner).structure(runner)
        self.until = None
        if drops is None:
            self.until = 2 if until is None else until
            require_whole('train_cfg.until', self.until, 1)
            if self.until >= len(structure):
                raise ValueError(
                    f'train_cfg.until={self.until}: expected less than the '
                    f'{len(structure)} {structure.units} of '
                    f'{structure.path!r}')
            drops = 1  # until what is gone already is known
        settings['stop'] = dict(budget=budget) if budget else None
        super().__init__(
            runner, dataloader, drops=drops, epochs_per_round=0, **settings)
        self.evaluator.labelled = labelled
        self.bounded = True
        self.out_dir = Path(out_dir or runner.work_dir)
        self._go_on_or_begin()

    def _go_on_or_begin(self) -> None:
        """Resume what was made from the same, and remove what was not."""
        folder = Path(self.runner.work_dir)
        key = preview_key(self.runner.cfg)
        if is_main_process():
            if read_key(folder) != key:
                for path in [folder / RECORD, *folder.glob('round_*.pth')]:
                    path.unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(key, folder / KEY)
        barrier()
        self.runner._resume = (folder / RECORD).is_file()

    def plan(self) -> None:
        """See :meth:`~.loop.DistillationLoop.plan`."""
        if self.until is not None:
            structure = self.hook.structure(self.runner)
            gone = len(self.hook.record['start_dropped'])
            self.drops = max(1, len(structure) - gone - self.until)
        super().plan()

    def start(self) -> None:
        """See :meth:`~.loop.DistillationLoop.start`."""
        super().start()
        self.hook.record['higher_is_better'] = self.sign > 0
        self.hook.write(self.runner)
        self._say(self.hook.record['baseline'])

    def choose_and_drop(self) -> None:
        """See :meth:`~.loop.DistillationLoop.choose_and_drop`."""
        super().choose_and_drop()
        found, entry = self.evaluator.found, self.hook.rounds[-1]
        entry['feature_error'] = found['feature_error']
        if self.evaluator.labelled:
            entry['metric'] = found[self.metric]
            entry['metric_interval'] = found.get(f'{self.metric}_interval')

    def finish_round(self) -> None:
        """See :meth:`~.loop.DistillationLoop.finish_round`."""
        best = self.path(self.best_name)
        super().finish_round()
        if is_main_process():
            best.unlink(missing_ok=True)
        self._say(self.hook.rounds[-1])

    def report_round(self) -> None:
        """Write what was found so far."""
        if is_main_process():
            write_preview(self.hook.record, self.out_dir)

    def _say(self, entry: Dict[str, Any]) -> None:
        """Print a line on a depth."""
        if not is_main_process():
            return
        error = entry.get('feature_error', 0.)
        metric = entry.get('metric')
        text = f'{len(entry["blocks_left"])} remain: feature error {error:.4f}'
        if metric is not None and self.evaluator.labelled:
            text += f', {self.metric} {metric:.4f}'
        print(f'{text}, latency / full {entry["latency_ratio"]:.2f}',
              flush=True)


# --------------------------------------------------------- what it was made of
def preview_key(cfg: Config) -> Dict[str, str]:
    """Short names of what a preview is made from.

    Args:
        cfg: Its config.

    Returns:
        ``model`` (weights, localizer, blocks, repair) and ``data``.
    """
    cfg = Config(dict(cfg.items())).to_dict()
    loop, checkpoint = cfg['train_cfg'], cfg['model'].get('checkpoint')
    weights: List[Any] = [checkpoint]
    if checkpoint and os.path.isfile(checkpoint):
        stat = os.stat(checkpoint)
        weights = [stat.st_size, stat.st_mtime_ns]
    return dict(
        model=digest([
            weights, cfg['model'].get('localizer'), cfg.get('custom_hooks'),
            *(loop.get(key) for key in ('scorer', 'repair', 'protect'))
        ]),
        data=digest([
            cfg.get('val_dataloader'),
            cfg.get('val_evaluator'),
            *(loop.get(key)
              for key in ('score_dataloader', 'metric', 'labelled'))
        ]))


def read_key(folder: Path) -> Optional[Dict[str, str]]:
    """What the preview in a folder was made from.

    Args:
        folder: Work directory of a preview.

    Returns:
        See :func:`preview_key`; None where there is none, or it is damaged.
    """
    if not (folder / KEY).is_file():
        return None
    try:
        return read_json(folder / KEY, 'preview')
    except ValueError:
        return None


def take_from_preview(folder: PathLike, number: int,
                      work_dir: PathLike) -> Path:
    """Make the model of a depth the result of a run.

    Args:
        folder: Work directory of the preview.
        number: Rounds that the model has behind it.
        work_dir: Where ``round_<n>.pth``, ``blockdrop.json`` and the report
            go.

    Returns:
        The checkpoint.
    """
    folder, work_dir = Path(folder), Path(work_dir)
    found = read_json(folder / RECORD, RECORD)
    found['rounds'] = found['rounds'][:number]
    result = f'round_{number}.pth'
    found.update(
        finished=True,
        result=result,
        stopped=dict(
            reason='drops',
            round=number,
            text=f'{number} of the rounds of the preview were taken.'))
    work_dir.mkdir(parents=True, exist_ok=True)
    for entry in found['rounds']:
        target = work_dir / entry['checkpoint']
        target.unlink(missing_ok=True)
        try:
            os.link(folder / entry['checkpoint'], target)
        except OSError:  # the file system knows no links
            shutil.copyfile(folder / entry['checkpoint'], target)
    write_json(found, work_dir / RECORD)
    write_report(found, work_dir)
    return work_dir / result
