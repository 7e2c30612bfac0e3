"""What a race knows about its candidates, batch by batch."""
import copy
from typing import Any, Callable, Dict, Sequence

from mmblockdrop.scorers.base import pick
from mmblockdrop.scorers.partial_scores import repeated_samples

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size
from torch import nn
from torch.utils.data import DataLoader


class Judge:
    """What is known about every candidate on every batch.

    Attributes:
        nothing: What a batch without samples gives.
    """
    nothing: Any = None

    def __init__(self) -> None:
        self.found: Dict[int, Dict[int, Any]] = {}

    def put(self, place: int, found: Dict[int, Any]) -> None:
        """Take what a batch gave for some candidates."""
        for index, value in found.items():
            self.found.setdefault(index, {})[place] = value

    def get(self, place: int, left: Sequence[int]) -> Dict[int, Any]:
        """Give what :meth:`put` took, plain data and arrays."""
        return {i: self.found[i][place] for i in left}

    def without_repeats(self, loader: Any, batch: dict) -> dict:
        """The last batch of a process without what others have, too."""
        return batch


class LossJudge(Judge):
    """Sum of the task loss over the samples of a batch, and their number."""
    nothing = [0., 0]

    def take(self, index: int, place: int, model: nn.Module, data: dict,
             batch: dict) -> None:
        """Run the model as it is now and keep what comes out.

        Args:
            index: The candidate it lacks.
            place: Place of the batch in the loader.
            model: The localizer.
            data: The batch, preprocessed.
            batch: The batch as loaded.
        """
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        samples = len(data['data_samples'])
        self.put(place, {index: [loss.double().item() * samples, samples]})

    def without_repeats(self, loader: Any, batch: dict) -> dict:
        extra = repeated_samples(loader) if isinstance(
            loader, DataLoader) else 0
        return {k: v[:-extra] for k, v in batch.items()} if extra else batch

    def values(self, left: Sequence[int]) -> Dict[int, np.ndarray]:
        """Values to compare, the same on every process.

        Args:
            left: Candidates that have seen every batch.

        Returns:
            One value per batch, in the order taken; not-a-number where a batch
            tells nothing.
        """
        table = torch.tensor([list(self.found[i].values()) for i in left],
                             dtype=torch.float64)
        all_reduce(table)
        means = (table[..., 0] / table[..., 1]).numpy()
        return dict(zip(left, means))

    def score(self, index: int) -> float:
        """The criterion over all that a candidate has seen.

        Args:
            index: The candidate.

        Returns:
            Its score, the same on every process.
        """
        total = torch.zeros(2, dtype=torch.float64)
        for _, pair in sorted(self.found[index].items()):
            total += torch.tensor(pair, dtype=torch.float64)
        all_reduce(total)
        return (total[0] / total[1]).item()


class MetricJudge(Judge):
    """Metric over a batch alone, and the results it was computed from."""

    def __init__(self, new_evaluator: Callable[[], Any], key: str) -> None:
        super().__init__()
        self.new_evaluator, self.key = new_evaluator, key

    def take(self, index: int, place: int, model: nn.Module, data: dict,
             batch: dict) -> None:
        """Run the model as it is now and keep what comes out.

        Args:
            index: The candidate it lacks.
            place: Place of the batch in the loader.
            model: The localizer.
            data: The batch, preprocessed.
            batch: The batch as loaded.
        """
        evaluator = self.new_evaluator()
        evaluator.process(model(**data, mode='predict'), batch)
        results = [list(metric.results) for metric in evaluator.metrics]
        self.put(place, {index: [self._alone(evaluator), results]})

    def _alone(self, evaluator: Any) -> float:
        """The metric over what this process has of one batch."""
        found: Dict[str, float] = {}
        for metric in evaluator.metrics:
            for noisy in ('classwise', 'outfile'):
                if getattr(metric, noisy, None):
                    setattr(metric, noisy, None)
            try:
                # Copies, for metrics that write into their results.
                values = metric.compute_metrics(
                    [copy.copy(result) for result in metric.results])
            except ValueError:  # nothing annotated in this batch
                return float('nan')
            prefix = f'{metric.prefix}/' if metric.prefix else ''
            found.update({prefix + k: v for k, v in values.items()})
        return pick(found, self.key, 'scorer.metric')

    def values(self, left: Sequence[int]) -> Dict[int, np.ndarray]:
        """Values to compare, the same on every process.

        Args:
            left: Candidates that have seen every batch.

        Returns:
            One value per batch, in the order taken; not-a-number where a batch
            tells nothing.
        """
        table = torch.tensor(
            [[value for value, _ in self.found[i].values()] for i in left],
            dtype=torch.float64)
        known = torch.stack([table.nan_to_num(), table.isfinite().double()])
        all_reduce(known)
        return dict(zip(left, (known[0] / known[1]).numpy()))

    def score(self, index: int) -> float:
        """The criterion over all that a candidate has seen.

        Args:
            index: The candidate.

        Returns:
            Its score, the same on every process.
        """
        evaluator = self.new_evaluator()
        parts = [results for _, (_, results) in sorted(
            self.found[index].items())]
        for metric, *results in zip(evaluator.metrics, *parts):
            metric.results.extend(sum(results, []))
        size = max(len(metric.results) for metric in evaluator.metrics)
        return pick(
            evaluator.evaluate(size * get_world_size()), self.key,
            'scorer.metric')
