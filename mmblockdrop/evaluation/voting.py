"""Boundaries of a segment from all candidates around it."""
import numpy as np

#: Elements of the largest temporary table.
CHUNK = 2_000_000


def vote(kept: np.ndarray, segments: np.ndarray, scores: np.ndarray,
         iou_threshold: float) -> np.ndarray:
    """Move segments to the weighted mean of the candidates around them.

    Args:
        kept: Segments to refine, shape (K, 2).
        segments: All candidates, shape (N, 2).
        scores: Their weights, shape (N, ).
        iou_threshold: Overlap from which a candidate has a voice.

    Returns:
        Refined segments, shape (K, 2). A segment that no candidate overlaps
        (one of zero length) stays where it is.
    """
    refined = kept.copy()
    rows = max(1, CHUNK // max(len(segments), 1))
    length = segments[:, 1] - segments[:, 0]
    for first in range(0, len(kept), rows):
        part = kept[first:first + rows]
        inter = np.minimum(part[:, None, 1], segments[:, 1]) - np.maximum(
            part[:, None, 0], segments[:, 0])
        inter = np.maximum(inter, 0)
        union = (part[:, 1] - part[:, 0])[:, None] + length - inter
        # Two segments of zero length have neither overlap nor union.
        iou = inter / np.where(union > 0, union, 1)
        weight = np.where(iou >= iou_threshold, scores, 0)
        total = weight.sum(1, keepdims=True)
        voted = total[:, 0] > 0
        refined[first:first + rows][voted] = (
            weight[voted] / total[voted]) @ segments
    return refined


def vote_in_groups(kept: np.ndarray, kept_groups: np.ndarray,
                   segments: np.ndarray, scores: np.ndarray,
                   groups: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Apply :func:`vote` within every group of classes.

    Args:
        kept: Segments to refine, shape (K, 2).
        kept_groups: Their groups, shape (K, ).
        segments: All candidates, shape (N, 2).
        scores: Their weights, shape (N, ).
        groups: Their groups, shape (N, ).
        iou_threshold: See :func:`vote`.

    Returns:
        Refined segments, shape (K, 2).
    """
    refined = kept.copy()
    for group in np.unique(kept_groups):
        mine, all_ = kept_groups == group, groups == group
        refined[mine] = vote(kept[mine], segments[all_], scores[all_],
                             iou_threshold)
    return refined
