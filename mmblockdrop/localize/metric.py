"""Mean average precision over temporal IoU as an MMEngine metric."""
import logging
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmblockdrop.registry import METRICS
from .activitynet import write_detections
from .average_precision import (APTable, Instances, average_precision,
                                unique_annotations)
from .postprocess import Segments, nms
from .recall import average_recall

#: Suppression of ActionFormer.
DEFAULT_NMS = dict(
    type='soft_nms', method='gaussian', sigma=0.5, min_score=0.001)


@METRICS.register_module()
class TADMetric(BaseMetric):
    """Score temporal action detections, video by video.

    Windows of a video are merged and overlapping detections suppressed
    (:func:`~mmblockdrop.localize.nms`); mAP and recall follow the ActivityNet
    evaluation (:mod:`~mmblockdrop.localize.average_precision`). Each sample
    gives one result, so that several processes count each window once.

    The samples carry ``pred_instances`` with ``segments`` in seconds,
    ``scores`` and ``labels``, and as meta information ``video_name``,
    ``video_segments`` (seconds) and ``video_labels`` of the whole video.

    Reported, under ``tad/``: ``mAP@0.50`` and so on, ``mAP`` (their mean),
    ``AR@<n>`` and ``AUC`` if ``ar_at`` is given, ``AP/<class>`` if
    ``classwise``.

    Args:
        tiou_thresholds (Sequence[float]): Defaults to 0.3, 0.4, ..., 0.7.
        nms (dict, optional): Arguments of
            :func:`~mmblockdrop.localize.nms`. None merges the windows
            without suppression. Defaults to Gaussian soft-NMS.
        max_per_video (int): Detections kept per video. Defaults to 200.
        ar_at (Sequence[int]): Average numbers of proposals to report recall
            at, as in the ActivityNet proposal task. Defaults to ().
        ar_tiou_thresholds (Sequence[float]): Thresholds that recall is
            averaged over. Defaults to 0.5, 0.55, ..., 0.95.
        classwise (bool): Report every class, as a table in the log too.
            Defaults to False.
        round_to (tuple[int, int], optional): Decimals of segments and scores
            before suppression; (2, 4) reproduces the published code.
            Defaults to None, no rounding.
        outfile (str, optional): File for the detections in ActivityNet's
            format. Defaults to None.
        collect_device (str): Defaults to ``'cpu'``.
        prefix (str, optional): Defaults to ``'tad'``.

    Raises:
        ValueError: If thresholds are missing or outside (0, 1].
    """

    default_prefix = 'tad'

    def __init__(self,
                 tiou_thresholds: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7),
                 nms: Optional[dict] = DEFAULT_NMS,
                 max_per_video: int = 200,
                 ar_at: Sequence[int] = (),
                 ar_tiou_thresholds: Sequence[float] = tuple(
                     np.linspace(0.5, 0.95, 10)),
                 classwise: bool = False,
                 round_to: Optional[Tuple[int, int]] = None,
                 outfile: Optional[str] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        for key, values in (('tiou_thresholds', tiou_thresholds),
                            ('ar_tiou_thresholds', ar_tiou_thresholds)):
            if not len(values) or not all(0 < x <= 1 for x in values):
                raise ValueError(f'TADMetric.{key} must be numbers above 0 '
                                 f'and up to 1, found {values}')
        self.tiou_thresholds = [float(x) for x in tiou_thresholds]
        self.nms = None if nms is None else dict(nms)
        self.max_per_video = max_per_video
        self.ar_at = [int(x) for x in ar_at]
        self.ar_tiou_thresholds = [float(x) for x in ar_tiou_thresholds]
        self.classwise = classwise
        self.round_to = round_to
        self.outfile = outfile

    @property
    def classes(self) -> Optional[List[str]]:
        """list[str] or None: Class names of the data set."""
        return (self.dataset_meta or {}).get('classes')

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the detections and annotations of a batch of windows.

        Args:
            data_batch: Not used.
            data_samples (Sequence[dict]): Samples with predictions.
        """
        for sample in data_samples:
            pred = sample['pred_instances']
            self.results.append(
                dict(
                    video=sample['video_name'],
                    window=sample.get('window_start_frame', 0),
                    segments=_array(pred['segments'], np.float32),
                    scores=_array(pred['scores'], np.float32),
                    labels=_array(pred['labels'], np.int64),
                    gt_segments=_array(sample['video_segments'], np.float64),
                    gt_labels=_array(sample['video_labels'], np.int64)))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Merge, suppress and score.

        Args:
            results (list[dict]): One entry per window.

        Returns:
            dict: Metrics, without prefix.

        Raises:
            ValueError: If no annotation is left to score against.
        """
        videos = group_windows(results)
        detections = {
            name: self.merge(windows)
            for name, windows in videos.items()
        }
        if self.outfile is not None:
            write_detections(self.outfile, detections, self.classes)
        gt, det = _flatten(videos, detections)
        if not len(gt.labels):
            raise ValueError(
                f'TADMetric: none of the {len(videos)} videos has an '
                "annotation; check 'ann_file' and the subset of the data set")
        table = average_precision(gt, det, self.tiou_thresholds)
        metrics = {
            f'mAP@{tiou:.2f}': float(value)
            for tiou, value in zip(self.tiou_thresholds, table.ap.mean(1))
        }
        metrics['mAP'] = float(table.ap.mean())
        metrics.update(self._recall(gt, det))
        if self.classwise:
            names = [self._name(k) for k in table.classes]
            for name, value in zip(names, table.ap.mean(0)):
                metrics[f'AP/{name}'] = float(value)
            print_log(
                '\n' + class_table(table, names, self.tiou_thresholds),
                logger='current')
        self._warn_unknown(det, table)
        return metrics

    def merge(self, windows: Sequence[Mapping[str, Any]]) -> Segments:
        """Detections of one video from those of its windows.

        Args:
            windows (Sequence[Mapping]): ``segments`` in seconds of the
                video, ``scores`` and ``labels`` of each window.

        Returns:
            Segments: Best first, at most ``max_per_video``.
        """
        segments, scores, labels = (np.concatenate(
            [_array(w[key], kind) for w in windows])
                                    for key, kind in (('segments', np.float32),
                                                      ('scores', np.float32),
                                                      ('labels', np.int64)))
        if self.round_to is not None:
            segments = segments.round(self.round_to[0])
            scores = scores.round(self.round_to[1])
        if self.nms is None:
            order = np.argsort(-scores, kind='stable')[:self.max_per_video]
            return Segments(segments.reshape(-1, 2)[order], scores[order],
                            labels[order])
        settings = {'max_num': self.max_per_video, **self.nms}
        return nms(segments, scores, labels, **settings)

    def _recall(self, gt: Instances, det: Instances) -> Dict[str, float]:
        if not self.ar_at:
            return {}
        curve = average_recall(gt, det, self.ar_tiou_thresholds,
                               max(self.ar_at))
        metrics = {f'AR@{n}': float(curve[n - 1]) for n in self.ar_at}
        # Trapezoids over 1 ... n proposals, divided by n as is customary.
        area = (curve[1:] + curve[:-1]).sum() / 2
        metrics['AUC'] = float(area / len(curve))
        return metrics

    def _name(self, label: int) -> str:
        return str(label) if self.classes is None else self.classes[label]

    def _warn_unknown(self, det: Instances, table: APTable) -> None:
        """Say how many detections are of classes nobody annotated."""
        unknown = ~np.isin(det.labels, table.classes)
        if unknown.any():
            print_log(
                f'{unknown.sum()} of {len(unknown)} detections are of classes '
                'without annotation in these videos and count nowhere',
                logger='current',
                level=logging.DEBUG)


def group_windows(results: Sequence[dict]) -> Dict[str, List[dict]]:
    """Windows by video; a window that comes twice is kept once.

    Args:
        results (Sequence[dict]): Entries with ``video`` and ``window``.

    Returns:
        dict: Video name to its windows, in order of their start.
    """
    videos: Dict[str, Dict[Any, dict]] = {}
    for result in results:
        videos.setdefault(result['video'], {}).setdefault(
            result['window'], result)
    return {
        name: [windows[start] for start in sorted(windows)]
        for name, windows in sorted(videos.items())
    }


def class_table(table: APTable, names: Sequence[str],
                tiou_thresholds: Sequence[float]) -> str:
    """Average precision by class as text, in percent.

    Args:
        table (APTable): The values.
        names (Sequence[str]): Names of its classes.
        tiou_thresholds (Sequence[float]): Its thresholds.

    Returns:
        str: One line per class, and their mean.
    """
    width = max(len(name) for name in (*names, 'class'))
    lines = [
        f'{"class":<{width}}  {"gt":>6} {"det":>7}' +
        ''.join(f'  @{t:.2f}' for t in tiou_thresholds) + '    mean'
    ]
    counts = [*table.num_gt, table.num_gt.sum()], [
        *table.num_det, table.num_det.sum()
    ]
    values = np.column_stack([table.ap, table.ap.mean(1)]) * 100
    for i, name in enumerate([*names, 'all']):
        lines.append(f'{name:<{width}}  {counts[0][i]:>6} {counts[1][i]:>7}' +
                     ''.join(f'  {x:5.1f}' for x in values[:, i]) +
                     f'   {values[:, i].mean():5.1f}')
    return '\n'.join(lines)


def _flatten(videos: Mapping[str, List[dict]],
             detections: Mapping[str, Segments]
             ) -> Tuple[Instances, Instances]:
    """Arrays over all videos from those of each."""
    names = list(videos)
    gt = [videos[name][0] for name in names]
    det = [detections[name] for name in names]
    index = np.arange(len(names))

    def join(parts: List[np.ndarray], kind: Any, tail: tuple) -> np.ndarray:
        return np.concatenate(
            [np.zeros((0, *tail), kind)] +
            [np.asarray(x, kind).reshape(-1, *tail) for x in parts])

    annotations = Instances(
        np.repeat(index, [len(g['gt_labels']) for g in gt]),
        join([g['gt_segments'] for g in gt], np.float64, (2, )),
        join([g['gt_labels'] for g in gt], np.int64, ()))
    found = Instances(
        np.repeat(index, [len(d.labels) for d in det]),
        join([d.segments for d in det], np.float64, (2, )),
        join([d.labels for d in det], np.int64, ()),
        join([d.scores for d in det], np.float64, ()))
    return unique_annotations(annotations), found


def _array(values: Any, kind: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float() if (
            values.dtype == torch.bfloat16) else values.detach().cpu()
    return np.asarray(values, kind)
