"""Measure the model of a run as it stands: metrics, cost, candidates."""
import copy
import inspect
from typing import Any, Dict, Optional, Tuple

from mmblockdrop.compression import Structure, has_lora, merge_lora
from mmblockdrop.compression.bypass import DroppedBlock
from mmblockdrop.compression.lora import check_called
from mmblockdrop.compression.spec import facts_of
from mmblockdrop.report import measure
from mmblockdrop.scorers.base import pick
from mmblockdrop.utils.batches import one_sample
from mmblockdrop.utils.progress import with_progress

import torch
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import nn

from .rebuild import fresh_localizer, localizer_of, plain_model


class ModelEvaluator:
    """Measures the runner's model on validation and scoring data.

    Args:
        runner: The runner, with a validation loop.
        score_dataloader: What candidates are scored on. Defaults to the
            validation data.

    Raises:
        ValueError: The config has no validation.
    """

    def __init__(self, runner: Runner,
                 score_dataloader: Optional[dict] = None) -> None:
        if runner._val_loop is None:
            raise ValueError(
                'DistillationLoop chooses the best epoch of a round and needs '
                'val_dataloader, val_cfg and val_evaluator in the config.')
        self.runner = runner
        self.score_dataloader = score_dataloader

    @property
    def score_batches(self) -> Any:
        """What candidates are scored on.

        Raises:
            ValueError: It is empty.
        """
        if not hasattr(self, '_score_batches'):
            if self.score_dataloader is None:
                self._score_batches = self.runner.val_loop.dataloader
            else:
                self._score_batches = Runner.build_dataloader(
                    copy.deepcopy(self.score_dataloader),
                    seed=self.runner.seed)
            if not len(self._score_batches.dataset):
                raise ValueError('train_cfg.score_dataloader gives an empty '
                                 'dataset: nothing to score on.')
        return self._score_batches

    def new_evaluator(self) -> Evaluator:
        """Evaluator like that of validation, with nothing counted yet.

        Returns:
            The evaluator. Its metrics give no intervals, for which each
            candidate would take a second or more.
        """
        evaluator = copy.deepcopy(self.keep_evaluator())
        for metric in evaluator.metrics:
            if hasattr(metric, 'bootstrap'):
                metric.bootstrap = 0
        evaluator.dataset_meta = self.score_batches.dataset.metainfo
        return evaluator

    def scored_on(self) -> Dict[str, Any]:
        """Which data candidates are scored on, for the record.

        Returns:
            ``samples``; ``subset`` and ``videos`` where the data set has them;
            ``validation``, whether it is the validation data.
        """
        dataset = self.score_batches.dataset
        found: Dict[str, Any] = dict(
            samples=len(dataset), validation=self.score_dataloader is None)
        subset = getattr(dataset, 'subset', None)
        if subset is not None:
            found['subset'] = subset if isinstance(subset, str) else [*subset]
        if hasattr(dataset, 'video_names'):
            found['videos'] = len(dataset.video_names)
        return found

    def score(self, metric: str) -> float:
        """Metric of the model as it is now on the data of the scores.

        Args:
            metric: Its key.

        Returns:
            Its value.
        """
        with torch.random.fork_rng(devices=[]):
            found = evaluate(
                plain_model(self.runner.model), self.score_batches,
                self.new_evaluator())
        return pick(found, metric, 'train_cfg.scorer.metric')

    def keep_evaluator(self) -> Evaluator:
        """Copy the evaluator of validation before it is used.

        Metrics may remember more than their results: ``ANetMetric`` of
        mmaction2 keeps the annotations of every video that it has seen.

        Returns:
            As it was when first asked for.
        """
        if not hasattr(self, '_unused'):
            self._unused = copy.deepcopy(self.runner.val_loop.evaluator)
            for metric in self._unused.metrics:
                metric.results.clear()
        return self._unused

    def probe(self, structure: Structure,
              lora: Optional[dict] = None) -> Dict[str, Any]:
        """Find out on one batch of validation what may be removed.

        Args:
            structure: That of the localizer.
            lora: LoRA that will be attached to the blocks.

        Returns:
            For the record; the same on every process.

        Raises:
            ValueError: LoRA names layers that are not called.
        """
        model = plain_model(self.runner.model)
        model.eval()
        with torch.random.fork_rng(devices=[]):
            batch = next(iter(self.runner.val_loop.dataloader))
            structure.probe(lambda: model.val_step(batch))
        if lora is not None:
            check_called(structure.idle, **lora)
        if structure.fixed:
            self.runner.logger.info(
                f'{structure.units.capitalize()} that may be dropped: '
                f'{structure.candidates()}.{structure.why_fixed}')
        found = [structure.probed]
        broadcast_object_list(found)
        return found[0]

    def validate(self) -> Dict[str, float]:
        """Metrics on the validation data as the model is now.

        Returns:
            All metrics.
        """
        val_loop = self.runner.val_loop
        evaluator = copy.deepcopy(self.keep_evaluator())
        return evaluate(
            plain_model(self.runner.model), val_loop.dataloader, evaluator)

    def cost(self, localizer: Optional[nn.Module] = None) -> Dict[str, Any]:
        """Parameters, MACs and latency of one window of validation.

        Args:
            localizer: Defaults to the one that is trained. LoRA counts as
                merged.

        Returns:
            See :func:`mmblockdrop.report.measure`, and the facts that the
            classes of the localizer declare; the same on every process.
        """
        if not hasattr(self, '_window'):
            batch = next(iter(self.runner.val_loop.dataloader))
            self._window = window_of(
                plain_model(self.runner.model).data_preprocessor(batch, False),
                localizer_of(self.runner.model))
        if localizer is None:
            localizer = localizer_of(self.runner.model)
        reference = None
        if not is_uncompressed(localizer):
            reference = getattr(
                plain_model(self.runner.model), 'teacher', None)
            if reference is None or not is_uncompressed(reference):
                reference = fresh_localizer(self.runner)
        if has_lora(localizer):
            localizer = copy.deepcopy(localizer)
            merge_lora(localizer)
        localizer.eval()
        with torch.no_grad():
            found = [measure(localizer, *self._window, reference=reference)]
        found[0].update(facts_of(localizer))
        broadcast_object_list(found)
        return found[0]


def window_of(data: Any, localizer: nn.Module) -> Tuple[Any, Optional[list]]:
    """One window to measure a localizer with.

    Args:
        data: A batch, preprocessed.
        localizer: The localizer.

    Returns:
        Inputs and samples; where its ``forward`` calls its arguments
        otherwise, a dict of all of them, and None.
    """
    data = one_sample(data)
    if not isinstance(data, dict):
        values = data if isinstance(data, (list, tuple)) else [data]
        data = dict(zip(inspect.signature(localizer.forward).parameters,
                        values))
    if set(data) <= {'inputs', 'data_samples'}:
        return data['inputs'], data.get('data_samples')
    return data, None


def is_uncompressed(model: nn.Module) -> bool:
    """Whether no block of a model has been dropped.

    Args:
        model: A localizer.

    Returns:
        Whether there is nothing in the place of a block.
    """
    return not any(isinstance(m, DroppedBlock) for m in model.modules())


def evaluate(model: nn.Module, dataloader: Any,
             evaluator: Evaluator) -> Dict[str, float]:
    """Run validation without the hooks of the runner.

    Args:
        model: Model with ``val_step``, not wrapped.
        dataloader: Batches.
        evaluator: Fresh evaluator.

    Returns:
        Metrics, the same on every process.
    """
    model.eval()
    with torch.no_grad():
        for batch in with_progress(dataloader):
            evaluator.process(model.val_step(batch), batch)
    return evaluator.evaluate(len(dataloader.dataset))
