"""What a localizer predicts for a window, as the metric keeps it."""
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from mmblockdrop.structures.segments import Instances, unique_annotations

import numpy as np
import torch

from .average_precision import APTable
from .suppression import Segments

Result = Dict[str, Any]


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
                         f'which are no classes of the data set: {names}')
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
