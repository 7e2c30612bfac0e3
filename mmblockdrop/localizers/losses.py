"""Losses on class logits and on segments."""
from typing import Optional, Tuple

from mmblockdrop.registry import MODELS
from mmblockdrop.utils.messages import require_choice

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """Reduce element-wise losses.

    Args:
        loss: Any shape; empty is allowed and gives 0.
        reduction: ``'none'``, ``'sum'`` or ``'mean'``.

    Returns:
        The reduced loss, connected to the graph even when empty.

    Raises:
        ValueError: If the reduction is unknown.
    """
    if reduction == 'none':
        return loss
    if reduction == 'sum':
        return loss.sum()
    require_choice('reduction', reduction, ('none', 'sum', 'mean'))
    return loss.sum() / max(loss.numel(), 1)


def sigmoid_focal_loss(logits: Tensor,
                       targets: Tensor,
                       alpha: float = 0.25,
                       gamma: float = 2.) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, equation 5) for soft targets too.

    Args:
        logits: Any shape.
        targets: Targets in [0, 1] of the same shape.
        alpha: Weight of positives, ``1 - alpha`` of negatives; negative
            switches the weighting off.
        gamma: Exponent that plays down easy examples.

    Returns:
        Loss per element, float32.
    """
    logits, targets = logits.float(), targets.float()
    prob = logits.sigmoid()
    loss = F.binary_cross_entropy_with_logits(
        logits, targets, reduction='none')
    missed = 1 - (prob * targets + (1 - prob) * (1 - targets))
    loss = loss * missed**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss


def _overlap(pred: Tensor, target: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing length of paired segments."""
    start = torch.maximum(pred[..., 0], target[..., 0])
    end = torch.minimum(pred[..., 1], target[..., 1])
    inter = (end - start).clamp(min=0)
    lengths = (pred[..., 1] - pred[..., 0]) + (target[..., 1] - target[..., 0])
    hull = torch.maximum(pred[..., 1], target[..., 1]) - torch.minimum(
        pred[..., 0], target[..., 0])
    return inter, lengths - inter, hull


def diou_loss(pred: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - DIoU of paired segments (Zheng et al., AAAI 2020, equation 7).

    Args:
        pred: Starts and ends [..., 2].
        target: Starts and ends [..., 2].
        eps: Smallest divisor.

    Returns:
        Loss per pair [...], float32.
    """
    pred, target = pred.float(), target.float()
    inter, union, hull = _overlap(pred, target)
    centre = (pred.sum(-1) - target.sum(-1)) / 2
    diou = inter / union.clamp(min=eps)
    return 1 - (diou - centre**2 / (hull**2).clamp(min=eps))


def giou_loss(pred: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """1 - GIoU of paired segments (Rezatofighi et al., CVPR 2019).

    Args:
        pred: Starts and ends [..., 2].
        target: Starts and ends [..., 2].
        eps: Smallest union, and what is added to the enclosing length.

    Returns:
        Loss per pair [...], float32.
    """
    pred, target = pred.float(), target.float()
    inter, union, hull = _overlap(pred, target)
    hull = hull.clamp(min=1e-7)
    return 1 - (inter / union.clamp(min=eps) - (hull - union) / (hull + eps))


class ReducedLoss(nn.Module):
    """Base of losses that compare element by element and reduce.

    Args:
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.
        loss_weight: Factor on the result.
    """

    def __init__(self,
                 reduction: str = 'mean',
                 loss_weight: float = 1.) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss per element (classes) or per pair (segments)."""
        raise NotImplementedError

    def forward(self,
                pred: Tensor,
                target: Tensor,
                reduction: Optional[str] = None) -> Tensor:
        """Compute the loss.

        Args:
            pred: Logits of any shape, or starts and ends [..., 2].
            target: The same shape and unit.
            reduction: Overrides the reduction of the module.

        Returns:
            The weighted, reduced loss.
        """
        loss = self.compare(pred, target)
        return self.loss_weight * reduce_loss(loss, reduction
                                              or self.reduction)


@MODELS.register_module()
class FocalLoss(ReducedLoss):
    """Focal loss on logits, see :func:`sigmoid_focal_loss`.

    Args:
        alpha: Weight of positives, negative for no weighting.
        gamma: Exponent that plays down easy examples.
        **kwargs: See :class:`ReducedLoss`.
    """

    def __init__(self,
                 alpha: float = 0.25,
                 gamma: float = 2.,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha
        self.gamma = gamma

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """See :func:`sigmoid_focal_loss`."""
        return sigmoid_focal_loss(pred, target, self.alpha, self.gamma)


@MODELS.register_module()
class DIoULoss(ReducedLoss):
    """Distance-IoU loss on segments, see :func:`diou_loss`."""

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """See :func:`diou_loss`."""
        return diou_loss(pred, target)


@MODELS.register_module()
class GIoULoss(ReducedLoss):
    """Generalized-IoU loss on segments, see :func:`giou_loss`."""

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """See :func:`giou_loss`."""
        return giou_loss(pred, target)
