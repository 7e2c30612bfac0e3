"""Windows in the form in which mmaction2's localizers read videos, and back.

BMN, TEM and TCANet see a whole video of ``duration_second`` seconds and
``duration_frame`` frames; ground truth and proposals are shares of it. Here
a window takes the place of the video, and one step the place of a second, so
that what comes back is in steps of the window.
"""
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

from mmblockdrop.structures.time_grid import seconds_to_steps, steps_to_seconds
from mmblockdrop.utils.io import read_json
from mmblockdrop.utils.messages import find_video

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

#: Ground truth of a window without actions: it touches no step.
NOWHERE = (-1., -1.)


class ProposalBridge:
    """Lets a proposal localizer of mmaction2 work on windows.

    Samples of other data sets than ``UntrimmedVideoDataset`` reach the
    localizer as they are, and its outputs for them the caller.

    Args:
        proposals: JSON file of the proposals that the localizer refines
            (TCANet), see :class:`ProposalFile`.
    """

    def __init__(self, proposals: Optional[str] = None) -> None:
        self.proposals = None if proposals is None else ProposalFile(proposals)

    def read(self, localizer: nn.Module, data_samples: list) -> list:
        """Samples in the form that the localizer reads.

        Args:
            localizer: The localizer.
            data_samples: Samples of any data set.

        Returns:
            New samples for windows, else the same list.
        """
        if not all(map(is_window, data_samples)):
            return data_samples
        interval = getattr(localizer, 'feature_extraction_interval', 1)
        return [
            to_proposal_sample(
                sample, interval, self.proposals
                and self.proposals.of_window(sample))
            for sample in data_samples
        ]

    def loss(self, localizer: nn.Module, feats: Tensor,
             data_samples: list) -> Dict[str, Tensor]:
        """Losses of the localizer.

        Args:
            localizer: The localizer.
            feats: Features ``[B, C, T]``.
            data_samples: Samples with ground truth.

        Returns:
            Losses; zero for a batch of windows without any action, where
            those of the localizer would not be numbers.
        """
        samples = self.read(localizer, data_samples)
        if samples is not data_samples and not any(
                len(sample.gt_instances.segments) for sample in data_samples):
            outputs = self._call(localizer, feats, samples, 'tensor')
            return dict(loss=sum(x.sum() * 0 for x in _tensors(outputs)))
        return dict(self._call(localizer, feats, samples, 'loss'))

    def predict(self, localizer: nn.Module, feats: Tensor,
                data_samples: list) -> list:
        """Proposals or curves of each window.

        Args:
            localizer: The localizer. It is given one window at a time: BMN and
                its kind look at the first of a batch only.
            feats: Features ``[B, C, T]``.
            data_samples: One sample per window.

        Returns:
            The samples, see :func:`add_proposals`.
        """
        samples = self.read(localizer, data_samples)
        outputs = [
            self._call(localizer, feats[i:i + 1], [sample], 'predict')[0]
            for i, sample in enumerate(samples)
        ]
        if samples is data_samples:
            return outputs
        return [add_proposals(*pair) for pair in zip(data_samples, outputs)]

    def _call(self, localizer: nn.Module, feats: Tensor, samples: list,
              mode: str) -> Any:
        try:
            return localizer(list(feats), samples, mode=mode)
        except AttributeError as error:
            if 'proposals' not in str(error):
                raise
            raise ValueError(
                f'{type(localizer).__name__} refines proposals, and the '
                'samples have none: set model.proposals to a file of them'
            ) from error


def _tensors(outputs: Any) -> List[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return [x for part in outputs for x in _tensors(part)]


def is_window(sample: ActionDataSample) -> bool:
    """Whether a sample is a window of our data set.

    Args:
        sample: Any sample; those of mmaction2 name no ``snippet_stride``.
    """
    return 'snippet_stride' in sample.metainfo


def to_proposal_sample(sample: ActionDataSample,
                       interval: int = 1,
                       proposals: Optional[Tensor] = None
                       ) -> ActionDataSample:
    """A window as mmaction2's proposal localizers read a video.

    Args:
        sample: Window of ``UntrimmedVideoDataset``.
        interval: ``feature_extraction_interval`` of the localizer.
        proposals: ``[M, 3]``, start and end as shares of the window, and
            score, for localizers that refine proposals.

    Returns:
        A new sample. ``gt_instances.gt_bbox`` are the actions as shares of the
        window, ``[N, 2]``; with ``proposals`` one row for each of them, the
        action that it overlaps most (zeros where there is none). A window
        without actions gets one row that touches no step. The metainfo holds
        ``duration_second`` and the like besides what it held.
    """
    window_size = sample.window_size
    segments = torch.zeros((0, 2))
    labels: List[int] = []
    if 'gt_instances' in sample:
        segments = sample.gt_instances.segments.float()
        labels = sample.gt_instances.labels.tolist()
    boxes = (segments / window_size).clamp(0, 1)
    result = ActionDataSample()
    if proposals is not None:
        proposals = proposals.to(boxes)
        result.proposals = InstanceData(proposals=proposals)
        boxes = best_actions(proposals, boxes)
    elif not len(boxes):
        boxes = boxes.new_tensor([NOWHERE])
    result.gt_instances = InstanceData(gt_bbox=boxes)
    frames = window_size * interval
    result.set_metainfo(
        dict(
            sample.metainfo,
            duration_second=float(window_size),
            duration_frame=frames,
            feature_frame=frames,
            annotations=[
                dict(segment=segment, label=label)
                for segment, label in zip(segments.tolist(), labels)
            ]))
    return result


def best_actions(proposals: Tensor, boxes: Tensor) -> Tensor:
    """The action that each proposal overlaps most.

    Args:
        proposals: ``[M, 3]``, start, end and score.
        boxes: Actions ``[N, 2]``.

    Returns:
        ``[M, 2]``, zeros where no action is touched.
    """
    if not len(boxes):
        return proposals.new_zeros(len(proposals), 2)
    start = torch.maximum(proposals[:, None, 0], boxes[:, 0])
    end = torch.minimum(proposals[:, None, 1], boxes[:, 1])
    inter = (end - start).clamp(min=0)
    lengths = (proposals[:, 1] - proposals[:, 0])[:, None] + (
        boxes[:, 1] - boxes[:, 0])
    iou, best = (inter / (lengths - inter).clamp(min=1e-6)).max(1)
    return boxes[best] * (iou > 0)[:, None]


def add_proposals(sample: ActionDataSample,
                  outputs: Any) -> ActionDataSample:
    """Put what a stock localizer predicts for a window into its sample.

    Args:
        sample: The window.
        outputs: What the localizer returned for it: a dict with a
            ``proposal_list`` in steps (BMN, TCANet, PEM), or a pair of the
            video's name and curves ``[T, 5]`` (TEM).

    Returns:
        The sample, with ``pred_instances`` (``segments`` ``[N, 2]`` in seconds
        of the video and ``scores``, no labels), or with ``curves`` ``[T, 5]``.

    Raises:
        TypeError: The localizer returned something else.
    """
    if isinstance(outputs, Mapping) and 'proposal_list' in outputs:
        found = outputs['proposal_list']
        segments = np.array([p['segment'] for p in found], np.float64)
        segments = steps_to_seconds(segments.reshape(-1, 2), sample.metainfo)
        sample.pred_instances = InstanceData(
            segments=torch.from_numpy(segments).float(),
            scores=torch.tensor([p['score'] for p in found]).float())
    elif isinstance(outputs, tuple) and len(outputs) == 2:
        sample.curves = torch.as_tensor(np.asarray(outputs[1], np.float32))
    else:
        raise TypeError(
            f'the localizer predicted {type(outputs).__name__}, expected a '
            "dict with 'proposal_list', or a pair of name and curves")
    return sample


class ProposalFile:
    """Proposals of whole videos that a localizer refines (TCANet).

    Args:
        path: JSON in ActivityNet's format, as ``ANetMetric`` and
            ``TADMetric.outfile`` write it: ``results -> video -> [{segment,
            score}]``, times in seconds.
        max_num: Best proposals kept per window.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file has another format.
    """

    def __init__(self, path: Union[str, Path], max_num: int = 100) -> None:
        self.path, self.max_num = str(path), max_num
        try:
            content = read_json(path, 'model.proposals')
            found = content['results']
            self.videos: Dict[str, np.ndarray] = {
                name: np.array([[*row['segment'], row['score']]
                                for row in rows], np.float64).reshape(-1, 3)
                for name, rows in found.items()
            }
        except FileNotFoundError:
            raise FileNotFoundError(
                f'model.proposals={self.path!r} does not exist') from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'model.proposals={self.path!r} is not of the form results '
                '-> video -> [{segment, score}]: '
                f'{type(error).__name__} {error}') from error

    def of_window(self, sample: ActionDataSample) -> Tensor:
        """Proposals of a window.

        Args:
            sample: The window.

        Returns:
            ``[M, 3]``, start and end as shares of the window and score; the
            whole window with a score of 0 if there is none.

        Raises:
            ValueError: The file does not know the video.
        """
        meta = sample.metainfo
        name = find_video(f'model.proposals={self.path!r}',
                          meta['video_name'], self.videos)
        rows = self.videos[name]
        shares = seconds_to_steps(rows[:, :2], meta) / meta['window_size']
        clipped = shares.clip(0, 1)
        length = (shares[:, 1] - shares[:, 0]).clip(1e-6)
        inside = (clipped[:, 1] - clipped[:, 0]) / length > 0.5
        rows = np.column_stack([clipped, rows[:, 2]])[inside]
        rows = rows[np.argsort(-rows[:, 2], kind='stable')][:self.max_num]
        if not len(rows):
            rows = np.array([[0., 1., 0.]])
        return torch.from_numpy(rows).float()
