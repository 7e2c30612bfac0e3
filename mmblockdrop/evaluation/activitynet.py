"""ActivityNet's JSON files: annotations, detections and their score."""
import math
from pathlib import Path
from typing import (Any, Callable, Dict, List, Mapping, NamedTuple, Optional,
                    Sequence, Tuple, Union)

from mmblockdrop.structures.segments import Instances, unique_annotations
from mmblockdrop.utils.io import read_json, write_json
from mmblockdrop.utils.messages import (did_you_mean, listed, require_choice,
                                        require_finite)

import numpy as np

from .average_precision import APTable, average_precision
from .recall import top_recall

JSON = Union[str, Path, Mapping[str, Any]]
#: A video's name and an entry of it: ``segment``, ``label``, ``score``.
Row = Tuple[str, Mapping[str, Any]]
#: Label of stretches that may or may not show an action.
AMBIGUOUS = 'Ambiguous'
#: What to do with them.
AMBIGUOUS_RULES = ('ignore', 'drop')


class Evaluation(NamedTuple):
    """Score of a file of detections.

    Attributes:
        table: Average precision by threshold and class.
        classes: Names of the classes of ``table``.
        metrics: ``average_mAP``, ``mAP@<tiou>`` and, if asked for,
            ``recall@<tiou>@<k>``.
        num_gt: Annotations counted.
        num_pred: Detections read.
        num_unknown: Detections of classes without annotation, which count
            nowhere.
    """
    table: APTable
    classes: List[str]
    metrics: Dict[str, float]
    num_gt: int
    num_pred: int
    num_unknown: int


def evaluate_detections(ground_truth: JSON,
                        predictions: JSON,
                        tiou_thresholds: Sequence[float],
                        subset: str = 'validation',
                        blocked: Sequence[str] = (),
                        top_k: Sequence[int] = (),
                        ambiguous: str = 'ignore') -> Evaluation:
    """Score detections against annotations, both in ActivityNet's format.

    Annotations of zero length and repeated ones are removed.

    Args:
        ground_truth: Annotations, path or content: ``database -> video ->
            {subset, annotations}``.
        predictions: Detections, path or content: ``results -> video ->
            [{segment, label, score}]``.
        tiou_thresholds: Temporal IoU thresholds.
        subset: Subset to score. Defaults to ``'validation'``.
        blocked: Videos left out. Defaults to ().
        top_k: Also report recall with ``k`` times as many detections as
            annotations. Defaults to ().
        ambiguous: ``'ignore'``: detections that touch a stretch labelled
            ``Ambiguous`` are not counted as false, as in the official THUMOS14
            evaluation; ``'drop'``: as if it were not annotated. Defaults to
            ``'ignore'``.

    Returns:
        The score.

    Raises:
        ValueError: If a file has another format, the subset is empty or the
            rule for ambiguous stretches is unknown.
    """
    require_choice('ambiguous', ambiguous, AMBIGUOUS_RULES)
    rows = annotated_rows(ground_truth, subset, blocked)
    actions = [row for row in rows if row[1]['label'] != AMBIGUOUS]
    unclear = [row for row in rows if row[1]['label'] == AMBIGUOUS]
    return score_rows(
        positive_length(actions), detected_rows(predictions, blocked),
        tiou_thresholds, top_k, unclear if ambiguous == 'ignore' else ())


def annotated_rows(ground_truth: JSON,
                   subset: str = 'validation',
                   blocked: Sequence[str] = ()) -> List[Row]:
    """Annotations of a subset.

    Args:
        ground_truth: See :func:`evaluate_detections`.
        subset: Subset to score. Defaults to ``'validation'``.
        blocked: Videos left out. Defaults to ().

    Returns:
        Pairs of a video's name and a dict of ``segment`` (seconds) and
        ``label``.

    Raises:
        ValueError: If the file has another format, the subset is empty, or a
            time is not a finite number.
    """
    database = _read(ground_truth, 'database')
    names = [
        name for name, video in database.items()
        if video['subset'] == subset and name not in blocked
    ]
    if not names:
        subsets = sorted({video['subset'] for video in database.values()})
        raise ValueError(f'subset={subset!r} has no video to score: expected '
                         f'one of {listed(subsets)}'
                         f'{did_you_mean(subset, subsets)}')
    rows = [(name, row) for name in names
            for row in database[name]['annotations']]
    _check_rows(rows)
    return rows


def detected_rows(predictions: JSON,
                  blocked: Sequence[str] = ()) -> List[Row]:
    """Detections of a file.

    Args:
        predictions: See :func:`evaluate_detections`.
        blocked: Videos left out. Defaults to ().

    Returns:
        As of :func:`annotated_rows`, with ``score``.

    Raises:
        ValueError: If the file has another format, or a time or a score is
            not a finite number.
    """
    results = _read(predictions, 'results')
    rows = [(name, row) for name, detections in results.items()
            if name not in blocked for row in detections]
    _check_rows(rows, 'score')
    return rows


def _check_rows(rows: Sequence[Row], *numbers: str) -> None:
    """Reject segments and scores that are not finite numbers."""
    for video, row in rows:
        start, end = row['segment']
        for key, value in (('start', start), ('end', end),
                           *((key, row[key]) for key in numbers)):
            if type(value) is not float or not math.isfinite(value):
                require_finite(value, f'Video {video!r} has {key}')


def positive_length(rows: Sequence[Row]) -> List[Row]:
    """Annotations that end after they start.

    Args:
        rows: See :func:`annotated_rows`.

    Returns:
        Those of them.
    """
    return [(name, row) for name, row in rows
            if row['segment'][1] > row['segment'][0]]


def score_rows(
    annotated: Sequence[Row],
    detected: Sequence[Row],
    tiou_thresholds: Sequence[float],
    top_k: Sequence[int] = (),
    ignored: Sequence[Row] = (),
    distinct: Callable[[Instances], Instances] = unique_annotations
) -> Evaluation:
    """Score detections against annotations.

    Args:
        annotated: See :func:`annotated_rows`. Their labels are the classes.
        detected: See :func:`detected_rows`.
        tiou_thresholds: Temporal IoU thresholds.
        top_k: See :func:`evaluate_detections`. Defaults to ().
        ignored: Stretches where no detection is false. Defaults to ().
        distinct: Removes what should not be counted of the annotations.

    Returns:
        The score.
    """
    numbers: Dict[str, int] = {}
    for name, _ in (*annotated, *detected, *ignored):
        numbers.setdefault(name, len(numbers))
    classes = list(dict.fromkeys(row['label'] for _, row in annotated))
    index = {name: i for i, name in enumerate(classes)}
    gt = distinct(_instances(annotated, numbers, index))
    det = _instances(detected, numbers, index, scored=True)
    known = det.labels < len(classes)
    table = average_precision(gt, det.select(known), tiou_thresholds,
                              _instances(ignored, numbers, index))
    by_threshold = table.ap.mean(1)
    metrics = dict(average_mAP=float(by_threshold.mean()))
    for tiou, value in zip(tiou_thresholds, by_threshold):
        metrics[f'mAP@{tiou}'] = float(value)
    if len(top_k):
        recall = top_recall(gt, det, tiou_thresholds, top_k)
        for tiou, values in zip(tiou_thresholds, recall):
            for k, value in zip(top_k, values):
                metrics[f'recall@{tiou}@{k}'] = float(value)
    return Evaluation(table, classes, metrics, len(gt.labels),
                      len(det.labels), int((~known).sum()))


def write_detections(path: Union[str, Path],
                     detections: Mapping[str, Any],
                     classes: Optional[Sequence[str]] = None,
                     **extra: Any) -> None:
    """Write detections in ActivityNet's format.

    Args:
        path: File to write; folders are made.
        detections: Video name to a triple of ``segments`` in seconds, shape
            (N, 2), ``scores`` (N, ) and ``labels`` (N, ).
        classes: Names of the labels.
        extra: Further entries of the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    results = {
        name: as_rows(*triple, classes=classes)
        for name, triple in detections.items()
    }
    content = dict(
        version='VERSION 1.3', results=results, external_data={}, **extra)
    write_json(content, path, indent=None)


def as_rows(segments: np.ndarray,
            scores: np.ndarray,
            labels: np.ndarray,
            classes: Optional[Sequence[str]] = None) -> List[dict]:
    """Detections of one video as a list of dicts.

    Args:
        segments: Start and end in seconds, shape (N, 2).
        scores: Shape (N, ).
        labels: Shape (N, ).
        classes: Names of the labels. Defaults to None, the numbers as text.

    Returns:
        ``segment`` (to the millisecond), ``label`` and ``score`` of each.
    """
    return [
        dict(
            segment=[round(float(s), 3), round(float(e), 3)],
            label=classes[int(k)] if classes else str(int(k)),
            score=float(c))
        for (s, e), c, k in zip(segments, scores, labels)
    ]


def _read(source: JSON, field: str) -> Mapping[str, Any]:
    if isinstance(source, (str, Path)):
        name = str(source)
        source = read_json(name, 'file')
    else:
        name = 'the dictionary given'
    if field not in source:
        raise ValueError(f'{name} has no key {field!r}, found '
                         f'{listed(sorted(source))}'
                         f'{did_you_mean(field, source)}')
    return source[field]


def _instances(rows: Sequence[Row],
               numbers: Mapping[str, int],
               classes: Mapping[str, int],
               scored: bool = False) -> Instances:
    """Flat arrays of (video, entry) pairs; unknown labels come last."""
    return Instances.build([numbers[name] for name, _ in rows],
                           [entry['segment'] for _, entry in rows],
                           [
                               classes.get(entry['label'], len(classes))
                               for _, entry in rows
                           ], [entry['score'] for _, entry in rows]
                           if scored else None)
