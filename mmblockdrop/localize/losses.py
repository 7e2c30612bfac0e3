"""Losses on class logits and on segments."""
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmblockdrop.registry import MODELS


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
    if reduction == 'mean':
        return loss.sum() / max(loss.numel(), 1)
    raise ValueError(f"reduction={reduction!r}, expected 'none', 'sum' or "
                     "'mean'")


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


@MODELS.register_module()
class FocalLoss(nn.Module):
    """Module around :func:`sigmoid_focal_loss`.

    Args:
        alpha: Weight of positives.
        gamma: Exponent.
        reduction: How elements are reduced if the call does not say.
        loss_weight: Factor on the result.
    """

    def __init__(self,
                 alpha: float = 0.25,
                 gamma: float = 2.,
                 reduction: str = 'sum',
                 loss_weight: float = 1.) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(self,
                logits: Tensor,
                targets: Tensor,
                reduction: str = '') -> Tensor:
        """Compute the loss.

        Args:
            logits: Any shape.
            targets: Targets in [0, 1] of the same shape.
            reduction: Overrides the module's reduction when not empty.

        Returns:
            The weighted, reduced loss.
        """
        loss = sigmoid_focal_loss(logits, targets, self.alpha, self.gamma)
        return self.loss_weight * reduce_loss(loss, reduction or
                                              self.reduction)


class _SegmentLoss(nn.Module):
    """Base of the losses on pairs of segments.

    Args:
        reduction: How pairs are reduced if the call does not say.
        loss_weight: Factor on the result.
    """

    measure = staticmethod(diou_loss)

    def __init__(self,
                 reduction: str = 'sum',
                 loss_weight: float = 1.) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(self,
                pred: Tensor,
                target: Tensor,
                reduction: str = '') -> Tensor:
        """Compute the loss.

        Args:
            pred: Starts and ends [..., 2].
            target: Starts and ends [..., 2] in the same unit.
            reduction: Overrides the module's reduction when not empty.

        Returns:
            The weighted, reduced loss.
        """
        loss = type(self).measure(pred, target)
        return self.loss_weight * reduce_loss(loss, reduction or
                                              self.reduction)


@MODELS.register_module()
class DIoULoss(_SegmentLoss):
    """Module around :func:`diou_loss`; see :class:`_SegmentLoss`."""

    measure = staticmethod(diou_loss)


@MODELS.register_module()
class GIoULoss(_SegmentLoss):
    """Module around :func:`giou_loss`; see :class:`_SegmentLoss`."""

    measure = staticmethod(giou_loss)
