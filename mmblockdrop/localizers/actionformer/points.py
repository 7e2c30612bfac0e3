"""Points of the temporal pyramid and what a localizer predicts at them."""
from typing import List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

#: Upper end of the range of the coarsest level, in steps.
UNBOUNDED = 10000.


class DensePredictions(NamedTuple):
    """Raw outputs of the head, one list entry per pyramid level.

    Attributes:
        cls_logits: Class logits [B, K, T_l].
        reg_offsets: Distances from a point to the start and to the end of
            its action [B, 2, T_l], at least 0, in strides of the level.
        masks: True where the point lies in real video, bool [B, T_l].
        points: [T_l, 4] = position, lower and upper end of the range of
            lengths the level is responsible for (all in steps), stride.
    """
    cls_logits: List[Tensor]
    reg_offsets: List[Tensor]
    masks: List[Tensor]
    points: List[Tensor]


class FlatPredictions(NamedTuple):
    """:class:`DensePredictions` with the levels joined, P points in all.

    Attributes:
        cls_logits: [B, P, K].
        reg_offsets: [B, P, 2], in strides.
        valid: bool [B, P].
        points: [P, 4].
    """
    cls_logits: Tensor
    reg_offsets: Tensor
    valid: Tensor
    points: Tensor


def flatten(preds: DensePredictions) -> FlatPredictions:
    """Join the levels, finest first.

    Args:
        preds: Predictions per level.

    Returns:
        The same numbers with the points of all levels along one axis.
    """
    return FlatPredictions(
        torch.cat(preds.cls_logits, dim=-1).transpose(1, 2),
        torch.cat(preds.reg_offsets, dim=-1).transpose(1, 2),
        torch.cat(preds.masks, dim=-1), torch.cat(preds.points))


def default_ranges(strides: Sequence[int]) -> List[Tuple[float, float]]:
    """Ranges of ActionFormer: a level with stride s takes (2s, 4s].

    The first level starts at 0 and the last one has no upper end.

    Args:
        strides: Strides of the levels in steps, increasing.

    Returns:
        One (low, high) pair in steps per level.
    """
    ranges = [(2. * stride, 4. * stride) for stride in strides]
    ranges[0] = (0., ranges[0][1])
    ranges[-1] = (ranges[-1][0], UNBOUNDED)
    return ranges


def grid_points(length: int, stride: int, bounds: Tuple[float, float],
                use_offset: bool, device: torch.device) -> Tensor:
    """Points of one level.

    Args:
        length: Number of points.
        stride: Distance of neighbouring points in steps.
        bounds: Range of the level in steps.
        use_offset: Put points at cell centres instead of cell starts.
        device: Where to make them.

    Returns:
        [length, 4] = position, range low, range high, stride.
    """
    points = torch.empty(length, 4, device=device)
    position = torch.arange(length, device=device, dtype=torch.float32)
    points[:, 0] = (position + 0.5 * use_offset) * stride
    points[:, 1], points[:, 2] = bounds
    points[:, 3] = stride
    return points


def segments_at(points: Tensor, offsets: Tensor) -> Tensor:
    """Turn distances at points into segments.

    Args:
        points: [P, 4], see :class:`DensePredictions`.
        offsets: Distances to start and end [..., P, 2], in strides.

    Returns:
        Starts and ends [..., P, 2] in steps.
    """
    sign = offsets.new_tensor([-1., 1.])
    return points[:, :1] + offsets * sign * points[:, 3:]
