"""ActivityNet's JSON files: annotations, detections and their score."""
import json
from pathlib import Path
from typing import (Any, Dict, List, Mapping, NamedTuple, Optional, Sequence,
                    Union)

from mmblockdrop.structures.segments import Instances, unique_annotations
from mmblockdrop.utils.io import read_json

import numpy as np

from .average_precision import APTable, average_precision
from .recall import top_recall

JSON = Union[str, Path, Mapping[str, Any]]
#: What to do with annotations labelled ``Ambiguous``.
AMBIGUOUS_RULES = ('ignore', 'drop', 'class')


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
                        ambiguous: str = 'ignore',
                        as_annotated: bool = False) -> Evaluation:
    """Score detections against annotations, both in ActivityNet's format.

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
            evaluation; ``'drop'``: as if it were not annotated; ``'class'``: a
            class like any other, as in the published code. Defaults to
            ``'ignore'``.
        as_annotated: Whether repeated annotations and those of zero length
            count, as in the official ActivityNet code, where a detection of
            zero length finds any annotation of zero length. Defaults to False:
            they are removed.

    Returns:
        The score.

    Raises:
        ValueError: If a file has another format, the subset is empty or the
            rule for ambiguous stretches is unknown.
    """
    if ambiguous not in AMBIGUOUS_RULES:
        raise ValueError(f'ambiguous is {ambiguous!r}, expected one of '
                         f'{AMBIGUOUS_RULES}')
    database = _read(ground_truth, 'database')
    results = _read(predictions, 'results')
    names = [
        name for name, video in database.items()
        if video['subset'] == subset and name not in blocked
    ]
    if not names:
        subsets = sorted({video['subset'] for video in database.values()})
        raise ValueError(f'no video of subset {subset!r} to score; the '
                         f'annotations have {subsets}')
    rows = [(name, a) for name in names
            for a in database[name]['annotations']]
    unclear = [(name, a) for name, a in rows if a['label'] == 'Ambiguous']
    if ambiguous != 'class':
        rows = [(name, a) for name, a in rows if a['label'] != 'Ambiguous']
    numbers = {name: i for i, name in enumerate([*database, *results])}
    if not as_annotated:
        rows = [(name, a) for name, a in rows
                if a['segment'][1] > a['segment'][0]]
    classes = list(dict.fromkeys(a['label'] for _, a in rows))
    index = {name: i for i, name in enumerate(classes)}
    gt = _instances(rows, numbers, index)
    if not as_annotated:
        gt = unique_annotations(gt)
    found = [(name, d) for name, detections in results.items()
             if name not in blocked for d in detections]
    det = _instances(found, numbers, index, scored=True)
    ignored = _instances(unclear, numbers, index) if (
        ambiguous == 'ignore') else None

    table = average_precision(gt, det.select(det.labels < len(classes)),
                              tiou_thresholds, ignored, as_annotated)
    by_threshold = table.ap.mean(1)
    metrics = dict(average_mAP=float(by_threshold.mean()))
    for tiou, value in zip(tiou_thresholds, by_threshold):
        metrics[f'mAP@{tiou}'] = float(value)
    if len(top_k):
        recall = top_recall(gt, det, tiou_thresholds, top_k)
        for tiou, row in zip(tiou_thresholds, recall):
            for k, value in zip(top_k, row):
                metrics[f'recall@{tiou}@{k}'] = float(value)
    return Evaluation(table, classes, metrics, len(gt.labels),
                      len(det.labels), int((det.labels == len(classes)).sum()))


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
    path.write_text(json.dumps(content))


def as_rows(segments: np.ndarray,
            scores: np.ndarray,
            labels: np.ndarray,
            classes: Optional[Sequence[str]] = None) -> List[dict]:
    """Detections of one video as a list of dicts, times in seconds."""
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
        raise ValueError(f"{name} has no field '{field}', found "
                         f'{sorted(source)[:10]}')
    return source[field]


def _instances(rows: Sequence[tuple],
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
