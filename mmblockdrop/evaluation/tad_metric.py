"""Mean average precision over temporal IoU as an MMEngine metric."""
import logging
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from mmblockdrop.registry import METRICS, replaced_by
from mmblockdrop.structures.segments import (Instances, Segments,
                                             unique_annotations)
from mmblockdrop.utils.messages import require_whole

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from .activitynet import write_detections
from .average_precision import (APTable, Matches, match_detections,
                                matched_precision, percentile_interval,
                                resample_videos, resampled_map)
from .external_classifier import ExternalClassifier
from .recall import annotation_recall
from .suppression import check_nms, nms_videos

#: What a localizer predicts for a window, see :func:`read_results`.
Result = Dict[str, Any]
#: Suppression of ActionFormer.
DEFAULT_NMS = dict(
    type='soft_nms', method='gaussian', sigma=0.5, min_score=0.001)


@METRICS.register_module()
@replaced_by('mmblockdrop.PublishedTADMetric', 'round_to')
class TADMetric(BaseMetric):
    """Score temporal action detections, video by video.

    Windows of a video are merged and overlapping detections suppressed
    (:func:`~mmblockdrop.evaluation.nms`); mAP and recall follow the evaluation
    of ActivityNet (:mod:`~mmblockdrop.evaluation.average_precision`). Each
    sample gives one result, so that several processes count each window once.

    The samples carry ``pred_instances`` with ``segments`` in seconds,
    ``scores`` and ``labels``, and as meta information ``video_name``,
    ``video_segments`` (seconds) and ``video_labels`` of the whole video. The
    outputs of mmaction2's BMN, PEM and TCANet are read as they are.

    Proposals have no class. ``external_classifier`` gives them the classes
    of their video; with ``class_agnostic`` every annotation counts as one
    class, which is what recall of proposals needs.

    Reported, under ``tad/``: ``mAP@0.50`` and so on, ``mAP`` (their mean),
    ``AR@<n>`` and ``AUC`` if ``ar_at`` is given, ``AP/<class>`` if
    ``classwise``; ``videos`` and ``actions``, how many were evaluated; and for
    each of the former, classes apart, ``<key>_interval``: low and high end of
    its 95 % interval by bootstrap over the videos
    (:func:`~mmblockdrop.evaluation.average_precision.percentile_interval`),
    left out of fewer than two videos.

    Args:
        tiou_thresholds: Defaults to 0.3, 0.4, ..., 0.7.
        nms: Arguments of :func:`~mmblockdrop.evaluation.nms`. None merges the
            windows without suppression. Defaults to Gaussian soft-NMS.
        max_per_video: Detections kept per video. Defaults to 200.
        ar_at: Average numbers of proposals to report recall at, as in the
            ActivityNet proposal task. Defaults to ().
        ar_tiou_thresholds: Thresholds that recall is averaged over. Defaults
            to 0.5, 0.55, ..., 0.95.
        classwise: Report every class, as a table in the log too. Defaults to
            False.
        external_classifier: Arguments of
            :class:`~mmblockdrop.evaluation.external_classifier.ExternalClassifier`:
            ``path``, ``topk`` and so on. Defaults to None.
        class_agnostic: Score segments whatever their class. Defaults to False.
        outfile: File for the detections in ActivityNet's format. Defaults to
            None.
        bootstrap: Resamples for the intervals, always the same ones; 0 leaves
            the intervals out. Defaults to 1000.
        collect_device: Defaults to ``'cpu'``.
        prefix: Defaults to ``'tad'``.

    Raises:
        ValueError: If thresholds are missing or outside (0, 1], ``nms`` has
            a wrong entry, or both ways to treat proposals are chosen.
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
                 external_classifier: Optional[dict] = None,
                 class_agnostic: bool = False,
                 outfile: Optional[str] = None,
                 bootstrap: int = 1000,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        for key, values in (('tiou_thresholds', tiou_thresholds),
                            ('ar_tiou_thresholds', ar_tiou_thresholds)):
            if not len(values) or not all(0 < x <= 1 for x in values):
                raise ValueError(f'TADMetric.{key}={values!r}: expected '
                                 'numbers above 0 and up to 1')
        self.tiou_thresholds = [float(x) for x in tiou_thresholds]
        self.nms = None if nms is None else dict(nms)
        check_nms(self.nms or {})
        self.max_per_video = max_per_video
        self.ar_at = [int(x) for x in ar_at]
        self.ar_tiou_thresholds = [float(x) for x in ar_tiou_thresholds]
        self.classwise = classwise
        if external_classifier and class_agnostic:
            raise ValueError(
                f'TADMetric.external_classifier={external_classifier!r} gives '
                'classes, class_agnostic=True ignores them: expected one of '
                'the two')
        self.classifier = (
            ExternalClassifier(**external_classifier)
            if external_classifier else None)
        self.class_agnostic = class_agnostic
        self.outfile = outfile
        require_whole('TADMetric.bootstrap', bootstrap, 0)
        self.bootstrap = bootstrap
        self._named: Optional[List[str]] = None

    @property
    def classes(self) -> Optional[List[str]]:
        """Class names of the data set."""
        if self.class_agnostic:
            return ['action']
        classes = (self.dataset_meta or {}).get('classes')
        if classes is None and self.classifier is not None:
            return self.classifier.classes
        return self._named if classes is None else classes

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the detections and annotations of a batch of windows.

        Args:
            data_batch: Holds the annotations where the predictions do not.
            data_samples: Predictions, see
                :func:`~mmblockdrop.evaluation.results.read_results`.

        Raises:
            ValueError: A segment or a score is NaN or infinite; proposals
                without class and without a way to treat them; or the external
                classifier lacks a video or a class.
        """
        for result in read_results(data_batch, data_samples):
            check_finite(result)
            self._check_classes(result)
            self.results.append(result)

    def _check_classes(self, result: Mapping[str, Any]) -> None:
        """Reject at once what could not be scored in the end."""
        labels = result['labels']
        if self.class_agnostic:
            return
        if self.classifier is not None:
            if labels is not None and labels.any():
                raise ValueError(
                    'TADMetric.external_classifier is for proposals without '
                    'class, and the localizer gives classes: remove it')
            self.classifier.scores_of(result['video'], self.classes)
            if isinstance(result['gt_labels'], list):
                self.classifier.check_classes(result['gt_labels'])
        elif labels is None:
            raise ValueError(
                'the localizer gives proposals without class: set '
                'external_classifier=dict(path=...) of TADMetric to a file '
                'of class scores by video, or class_agnostic=True to score '
                'proposals alone; mmblockdrop.EndToEndLocalizer can have a '
                'class_head')

    def compute_metrics(self, results: List[dict]) -> Dict[str, Any]:
        """Merge, suppress and score.

        Args:
            results: One entry per window.

        Returns:
            Metrics, without prefix.

        Raises:
            ValueError: If there is no annotation to score against.
        """
        self._named = class_names(results, self.classes)
        videos = group_windows([
            dict(
                result,
                gt_labels=np.zeros(len(result['gt_labels']), np.int64)
                if self.class_agnostic else label_numbers(
                    result['gt_labels'], self._named)) for result in results
        ])
        detections = dict(zip(videos, self._merge_all([*videos.values()])))
        if self.outfile is not None:
            write_detections(self.outfile, detections, self.classes)
        gt, det = flatten_videos(videos, detections)
        if not len(gt.labels):
            raise ValueError(
                f'TADMetric: none of the {len(videos)} videos has an '
                "annotation; check 'ann_file' and the subset of the data set")
        matches = match_detections(
            gt, det, self.tiou_thresholds, num_videos=len(videos))
        table = matched_precision(matches)
        metrics: Dict[str, Any] = {
            f'mAP@{tiou:.2f}': float(value)
            for tiou, value in zip(self.tiou_thresholds, table.ap.mean(1))
        }
        metrics['mAP'] = float(table.ap.mean())
        resampled = self._resample(matches)
        if self.ar_at:
            found = annotation_recall(gt, det, self.ar_tiou_thresholds,
                                      max(self.ar_at))
            metrics.update({k: float(v)
                            for k, v in self._recall(found.mean(0)).items()})
            resampled.update(self._resample_recall(gt, found, len(videos)))
        if self.classwise:
            names = [self._name(k) for k in table.classes]
            for name, value in zip(names, table.ap.mean(0)):
                metrics[f'AP/{name}'] = float(value)
            print_log(
                '\n' + class_table(table, names, self.tiou_thresholds),
                logger='current')
        self._warn_unknown(det, table)
        # As floats: mmengine writes whole numbers as null.
        metrics.update(
            videos=float(len(videos)), actions=float(len(gt.labels)))
        metrics.update({
            f'{key}_interval': [*percentile_interval(values, metrics[key])]
            for key, values in resampled.items()
        })
        return metrics

    def merge(self, windows: Sequence[Mapping[str, Any]]) -> Segments:
        """Detections of one video from those of its windows.

        Args:
            windows: ``segments`` in seconds of the video, ``scores`` and
                ``labels`` of each window; ``video`` where an external
                classifier is used.

        Returns:
            Best first, at most ``max_per_video``.
        """
        return self._merge_all([windows])[0]

    def _merge_all(self, videos: Sequence[Sequence[Mapping[str, Any]]]
                   ) -> List[Segments]:
        """:meth:`merge` of all videos."""
        joined = [self.join(windows) for windows in videos]
        if self.nms is not None:
            settings = {'max_num': self.max_per_video, **self.nms}
            return nms_videos(joined, **settings)
        found = []
        for segments, scores, labels in joined:
            order = np.argsort(-scores, kind='stable')[:self.max_per_video]
            found.append(
                Segments(segments.reshape(-1, 2)[order], scores[order],
                         labels[order]))
        return found

    def join(self, windows: Sequence[Mapping[str, Any]]
             ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections of all windows of a video, before suppression.

        Args:
            windows: See :meth:`merge`.

        Returns:
            Segments [N, 2] in seconds, scores [N] and labels [N].
        """
        for window in windows:
            check_finite(window)
        segments, scores = (
            np.concatenate([as_array(w[key], np.float32) for w in windows])
            for key in ('segments', 'scores'))
        return self._label(windows, segments, scores)

    def _label(self, windows: Sequence[Mapping[str, Any]],
               segments: np.ndarray, scores: np.ndarray
               ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give proposals their classes."""
        if self.class_agnostic:
            return segments, scores, np.zeros(len(scores), np.int64)
        if self.classifier is None:
            return segments, scores, np.concatenate(
                [as_array(w['labels'], np.int64) for w in windows])
        names, best = self.classifier.scores_of(windows[0]['video'],
                                                self.classes)
        classes = list(self.classes)
        return (np.tile(segments.reshape(-1, 2), (len(names), 1)),
                np.concatenate(
                    [self.classifier.combined(scores, x) for x in best]),
                np.repeat([classes.index(name) for name in names],
                          len(scores)))

    def _recall(self, curve: np.ndarray) -> Dict[str, Any]:
        """AR@n and AUC of curves over 1, 2, ... proposals, [..., n]."""
        metrics = {f'AR@{n}': curve[..., n - 1] for n in self.ar_at}
        # Trapezoids over 1 ... n proposals, divided by n as is customary.
        area = (curve[..., 1:] + curve[..., :-1]).sum(-1) / 2
        metrics['AUC'] = area / curve.shape[-1]
        return metrics

    def _resample(self, matches: Matches) -> Dict[str, np.ndarray]:
        """Mean average precision of resamples of the videos, by key."""
        if not self.bootstrap or matches.num_videos < 2:
            return {}
        values = resampled_map(matches, self.bootstrap)
        found = {f'mAP@{tiou:.2f}': values[:, i]
                 for i, tiou in enumerate(self.tiou_thresholds)}
        return dict(found, mAP=values.mean(1))

    def _resample_recall(self, gt: Instances, found: np.ndarray,
                         num_videos: int) -> Dict[str, np.ndarray]:
        """AR@n and AUC of the same resamples, by key.

        Videos keep as many of their proposals as among all videos.
        """
        if not self.bootstrap or num_videos < 2:
            return {}
        sums = np.zeros((num_videos, found.shape[1]))
        np.add.at(sums, gt.videos, found)
        counts = np.bincount(gt.videos, minlength=num_videos)

        def curve(weights: np.ndarray) -> np.ndarray:
            number = (weights.T @ counts)[:, None]
            return np.where(number, weights.T @ sums / np.maximum(number, 1),
                            np.nan)

        return self._recall(
            resample_videos(curve, num_videos, sums.size, self.bootstrap))

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


def check_finite(result: Mapping[str, Any]) -> None:
    """Reject detections and annotations that are not finite.

    Args:
        result: See :func:`read_results`; annotations may be absent.

    Raises:
        ValueError: A segment or a score is NaN or infinite; names the video.
    """
    for key in ('segments', 'scores', 'gt_segments'):
        values = as_array(result.get(key, ()), np.float64)
        bad = values[~np.isfinite(values)]
        if bad.size:
            video = result.get('video')
            where = f' for video {video!r}' if video else ''
            raise ValueError(
                f'{key}={bad[0]} in {bad.size} of {values.size} values{where}:'
                ' expected finite numbers')


def read_results(data_batch: Any,
                 predictions: Sequence[Any]) -> List[Result]:
    """Detections or proposals and annotations of a batch of windows.

    Args:
        data_batch: What the data loader gave; its ``data_samples`` hold the
            annotations that the predictions of mmaction2's localizers do not
            repeat.
        predictions: Samples as dicts, with ``pred_instances``; or dicts of
            ``video_name`` and ``proposal_list``, as BMN, PEM and TCANet give
            them for one video.

    Returns:
        One entry per window: ``video``, ``window`` (its first frame),
        ``segments`` ``[N, 2]`` in seconds, ``scores``, ``labels`` (None for
        proposals), ``gt_segments`` and ``gt_labels``, the latter names where
        the data set has only these.

    Raises:
        ValueError: The predictions are neither; or there are fewer of them
            than samples.
    """
    results = []
    for i, prediction in enumerate(predictions):
        if not isinstance(prediction, Mapping) or not (
                {'pred_instances', 'proposal_list'} & set(prediction)):
            raise ValueError(
                'TADMetric scores samples with pred_instances, or dicts with '
                f'a proposal_list, found {_describe(prediction)}')
        if 'pred_instances' in prediction:
            results.append(_from_sample(prediction))
            continue
        samples = (data_batch or {}).get('data_samples') or []
        if len(samples) != len(predictions):
            raise ValueError(
                f'{len(predictions)} predictions for {len(samples)} samples: '
                'BMN, PEM and TCANet look at the first sample of a batch '
                'only, set batch_size=1 in the data loader')
        results.append(_from_proposals(prediction, samples[i].metainfo))
    return results


def label_numbers(labels: Any, names: Optional[Sequence[str]]) -> np.ndarray:
    """Numbers of annotated classes.

    Args:
        labels: Numbers, or names.
        names: Names of the data set's classes.

    Returns:
        Int64 ``[N]``.

    Raises:
        ValueError: A name is not among them.
    """
    if isinstance(labels, np.ndarray):
        return labels
    unknown = sorted(set(labels) - set(names or ()))
    if unknown:
        raise ValueError(f'TADMetric: the annotations name {unknown[:3]}, '
                         f'which are not classes of the data set: {names}')
    return np.array([list(names or ()).index(x) for x in labels], np.int64)


def class_names(results: Sequence[Result],
                classes: Optional[Sequence[str]]) -> Optional[List[str]]:
    """Names of the classes to score.

    Args:
        results: See :func:`read_results`.
        classes: Those of the data set.

    Returns:
        The same; where the data set names none, all that are annotated, in
        alphabetical order. None if there are only numbers.
    """
    if classes is not None:
        return list(classes)
    named = {
        name
        for r in results if isinstance(r['gt_labels'], list)
        for name in r['gt_labels']
    }
    return sorted(named) or None


def group_windows(results: Sequence[dict]) -> Dict[str, List[dict]]:
    """Windows by video; a window that comes twice is kept once.

    Args:
        results: Entries with ``video`` and ``window``.

    Returns:
        Video name to its windows, in order of their start.
    """
    videos: Dict[str, Dict[Any, dict]] = {}
    for result in results:
        videos.setdefault(result['video'], {}).setdefault(
            result['window'], result)
    return {
        name: [windows[start] for start in sorted(windows)]
        for name, windows in sorted(videos.items())
    }


def flatten_videos(
    videos: Mapping[str, List[Result]], detections: Mapping[str, Segments]
) -> Tuple[Instances, Instances]:
    """Arrays over all videos from those of each.

    Args:
        videos: Video name to its windows.
        detections: Video name to its detections.

    Returns:
        Annotations, without repetition, and detections.
    """
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


def class_table(table: APTable, names: Sequence[str],
                tiou_thresholds: Sequence[float]) -> str:
    """Average precision by class as text, in percent.

    Args:
        table: The values.
        names: Names of its classes.
        tiou_thresholds: Its thresholds.

    Returns:
        One line per class, and their mean.
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


def as_array(values: Any, kind: Any) -> np.ndarray:
    """Any numbers as an array.

    Args:
        values: Tensor, array or list.
        kind: Type of the elements.

    Returns:
        The array.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            values = values.float()
    return np.asarray(values, kind)


def _from_sample(sample: Mapping[str, Any]) -> Result:
    pred = sample['pred_instances']
    labels = pred.get('labels')
    return dict(
        video=sample['video_name'],
        window=sample.get('window_start_frame', 0),
        segments=as_array(pred['segments'], np.float32),
        scores=as_array(pred['scores'], np.float32),
        labels=None if labels is None else as_array(labels, np.int64),
        gt_segments=as_array(sample['video_segments'], np.float64),
        gt_labels=as_array(sample['video_labels'], np.int64))


def _from_proposals(prediction: Mapping[str, Any],
                    meta: Mapping[str, Any]) -> Result:
    found, actions = prediction['proposal_list'], meta.get('annotations')
    if actions is None:
        raise ValueError(
            "TADMetric needs 'annotations' in the samples: name it in "
            'meta_keys of PackLocalizationInputs')
    segments = np.array([p['segment'] for p in found], np.float32)
    truth = np.array([a['segment'] for a in actions], np.float64)
    return dict(
        video=prediction['video_name'],
        window=0,
        segments=segments.reshape(-1, 2),
        scores=np.array([p['score'] for p in found], np.float32),
        labels=None,
        gt_segments=truth.reshape(-1, 2),
        gt_labels=[str(a['label']) for a in actions])


def _describe(prediction: Any) -> str:
    if isinstance(prediction, Mapping):
        return f'a dict of {sorted(prediction)[:8]}'
    return f'a {type(prediction).__name__}'
