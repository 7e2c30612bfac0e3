"""Which action each point of the pyramid is responsible for."""
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@torch.no_grad()
def assign_targets(
        points: Tensor,
        segments: Sequence[Tensor],
        labels: Sequence[Tensor],
        num_classes: int,
        center_radius: float = 1.5,
        filter_similar: bool = True) -> Tuple[Tensor, Tensor]:
    """Assign actions to points (ActionFormer, ECCV 2022, section 3.4).

    A point belongs to an action if it lies strictly inside of it and less
    than ``center_radius`` strides from its centre, and if the larger of its
    two distances to the boundaries lies in the range of its level. The
    shortest such action gives the boundaries, the first one of equals.

    Args:
        points: [P, 4] = position, range low, range high, stride; steps.
        segments: Starts and ends [N_b, 2] in steps, one tensor per sample.
        labels: Classes [N_b], one tensor per sample.
        num_classes: K.
        center_radius: In strides; 0 or less takes all points inside.
        filter_similar: Only actions within 1e-3 steps of the shortest one
            give their class; otherwise every matching action does.

    Returns:
        Multi-hot classes [B, P, K] and distances to start and end
        [B, P, 2] in strides, float32. The distances mean nothing where no
        class is set.

    Raises:
        ValueError: If a label is not in [0, K).
    """
    counts = torch.tensor([len(label) for label in labels])
    shape = (len(counts), len(points))
    if counts.max() == 0:
        return points.new_zeros(*shape, num_classes), points.new_zeros(
            *shape, 2)
    boxes = pad_sequence([x.float() for x in segments], True)
    onehot = _one_hot(pad_sequence([x.long() for x in labels], True),
                      num_classes)
    real = torch.arange(boxes.size(1)) < counts[:, None]
    length = _matched_lengths(points, boxes, real.to(boxes.device),
                              center_radius)

    shortest = length.amin(-1, keepdim=True)
    given = length <= shortest + 1e-3 if filter_similar else True
    given = (length < float('inf')) & given
    classes = (given.float() @ onehot).clamp(max=1)
    order = torch.arange(boxes.size(1), device=boxes.device)
    first = order.where(length == shortest, boxes.size(1)).amin(-1)
    box = boxes.gather(1, first.unsqueeze(-1).expand(-1, -1, 2))
    position, stride = points[:, 0], points[:, 3]
    offsets = torch.stack((position - box[..., 0], box[..., 1] - position), -1)
    return classes, offsets / stride[:, None]


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """One-hot labels, with an error that names the config key."""
    low, high = (int(x) for x in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f'head.num_classes={num_classes}, but annotations '
                         f'have class indices from {low} to {high}; expected '
                         f'0 to {num_classes - 1}')
    return F.one_hot(labels, num_classes).float()


def _matched_lengths(points: Tensor, boxes: Tensor, real: Tensor,
                     center_radius: float) -> Tensor:
    """Length of each action where a point matches it, else infinity."""
    position, low, high, stride = points.unsqueeze(1).unbind(-1)
    start, end = boxes.unsqueeze(1).unbind(-1)
    left, right = position - start, end - position
    inside = (left > 0) & (right > 0)
    if center_radius > 0:
        centre, reach = 0.5 * (start + end), stride * center_radius
        inside &= (position > centre - reach) & (position < centre + reach)
    furthest = torch.maximum(left, right)
    matched = inside & (furthest >= low) & (furthest <= high)
    matched &= real.unsqueeze(1)
    return (end - start).where(matched, float('inf'))
