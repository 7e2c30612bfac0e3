"""Anchor-free head shared by all levels of the pyramid, and its targets."""
import math
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from mmblockdrop.registry import MODELS, replaced_by

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .attention import MaskedConv

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


class Scale(nn.Module):
    """One learnable factor.

    Args:
        init_value: Where it starts.
    """

    def __init__(self, init_value: float = 1.) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: Any tensor.

        Returns:
            The scaled tensor.
        """
        return x * self.scale


@MODELS.register_module()
@replaced_by('mmblockdrop.PublishedActionFormerHead', 'integer_normalizer')
class ActionFormerHead(BaseModule):
    """Classes and boundaries at every point (ActionFormer, ECCV 2022).

    Two towers of convolutions, shared by all levels, give one logit per
    class and the distances to start and end, in strides of the level.

    Args:
        num_classes: Number of action classes.
        in_channels: Channels of the pyramid.
        feat_channels: Channels of the towers, ``in_channels`` by default.
        num_convs: Convolutions per tower.
        strides: Stride of each level in steps.
        regression_ranges: (low, high) in steps per level: the distances to
            the further boundary a level is responsible for. By default
            (2 stride, 4 stride], open at both ends of the pyramid.
        use_offset: Put points at cell centres instead of cell starts.
        center_radius: Only points within so many strides of the centre of
            an action are positive; 0 takes all points inside.
        filter_similar: See :func:`assign_targets`.
        label_smoothing: Share of the class target spread over the classes.
        prior_prob: Class probability the head starts with; 0 leaves the
            bias at its random start.
        loss_cls: Config of the loss on class logits, summed over points.
        loss_reg: Config of the loss on segments, summed over points.
        reg_weight: Weight of the boundary loss; 0 or below makes it as
            large as the class loss at every step.
        loss_normalizer: Start of the running number of positive points by
            which losses are divided in training.
        normalizer_momentum: Momentum of that number.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: If ranges and strides differ in number.
    """

    def __init__(self,
                 num_classes: int,
                 in_channels: int,
                 feat_channels: Optional[int] = None,
                 num_convs: int = 2,
                 strides: Sequence[int] = (1, 2, 4, 8, 16, 32),
                 regression_ranges: Optional[Sequence[Tuple[float,
                                                            float]]] = None,
                 use_offset: bool = False,
                 center_radius: float = 1.5,
                 filter_similar: bool = True,
                 label_smoothing: float = 0.,
                 prior_prob: float = 0.01,
                 loss_cls: Optional[dict] = None,
                 loss_reg: Optional[dict] = None,
                 reg_weight: float = 1.,
                 loss_normalizer: float = 100.,
                 normalizer_momentum: float = 0.9,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        ranges = regression_ranges or default_ranges(strides)
        if len(ranges) != len(strides):
            raise ValueError(
                f'head.regression_ranges has {len(ranges)} entries, expected '
                f'{len(strides)}: one per entry of head.strides={strides}')
        self.num_classes = num_classes
        self.strides = list(strides)
        self.ranges = [tuple(bounds) for bounds in ranges]
        self.use_offset = use_offset
        self.center_radius = center_radius
        self.filter_similar = filter_similar
        self.label_smoothing = label_smoothing
        self.reg_weight = reg_weight
        self.normalizer_momentum = normalizer_momentum
        self.register_buffer('loss_normalizer',
                             torch.tensor(float(loss_normalizer)))
        self._init_layers(in_channels, feat_channels or in_channels, num_convs)
        if prior_prob > 0:
            prior = -math.log((1 - prior_prob) / prior_prob)
            nn.init.constant_(self.cls_head.bias, prior)
        self.loss_cls = MODELS.build(loss_cls
                                     or dict(type='mmblockdrop.FocalLoss'))
        self.loss_reg = MODELS.build(loss_reg
                                     or dict(type='mmblockdrop.DIoULoss'))

    def _init_layers(self, in_channels: int, feat_channels: int,
                     num_convs: int) -> None:
        widths = [in_channels] + [feat_channels] * num_convs
        for name in ('cls_convs', 'reg_convs'):
            tower = (MaskedConv(*pair) for pair in zip(widths, widths[1:]))
            setattr(self, name, nn.ModuleList(tower))
        self.cls_head = nn.Conv1d(widths[-1], self.num_classes, 3, padding=1)
        self.reg_head = nn.Conv1d(widths[-1], 2, 3, padding=1)
        self.scale = nn.ModuleList(Scale() for _ in self.strides)

    def forward(self, feats: Sequence[Tensor],
                masks: Sequence[Tensor]) -> DensePredictions:
        """Predict at every point.

        Args:
            feats: [B, C, T_l] per level.
            masks: bool [B, T_l] per level.

        Returns:
            Float32 predictions per level.

        Raises:
            ValueError: If the number of levels is not that of ``strides``.
        """
        if len(feats) != len(self.strides):
            raise ValueError(
                f'head.strides has {len(self.strides)} entries, but the '
                f'pyramid has {len(feats)} levels; expected one per level')
        logits, offsets, points = [], [], []
        for level, (feat, mask) in enumerate(zip(feats, masks)):
            cls_feat = reg_feat = feat
            for conv in self.cls_convs:
                cls_feat, _ = conv(cls_feat, mask)
            for conv in self.reg_convs:
                reg_feat, _ = conv(reg_feat, mask)
            logits.append(self.cls_head(cls_feat).float())
            distance = self.scale[level](self.reg_head(reg_feat))
            offsets.append(F.relu(distance.float()))
            points.append(
                grid_points(
                    feat.size(-1), self.strides[level], self.ranges[level],
                    self.use_offset, feat.device))
        return DensePredictions(logits, offsets, list(masks), points)

    @staticmethod
    def flatten(preds: DensePredictions) -> FlatPredictions:
        """Join the levels, see :func:`flatten`."""
        return flatten(preds)

    def decode(self, preds: DensePredictions) -> Tuple[Tensor, Tensor]:
        """Segments and scores at every point.

        Args:
            preds: Predictions per level.

        Returns:
            Segments [B, P, 2] in steps and scores [B, P, K] in [0, 1].
        """
        flat = flatten(preds)
        return (segments_at(flat.points, flat.reg_offsets),
                flat.cls_logits.sigmoid())

    def targets(self, preds: DensePredictions,
                data_samples: list) -> Tuple[Tensor, Tensor]:
        """Targets of the head.

        Args:
            preds: Predictions per level, for their points.
            data_samples: Samples with ``gt_instances``: ``segments`` [N, 2]
                in steps and ``labels`` [N].

        Returns:
            Multi-hot classes [B, P, K] and distances [B, P, 2] in strides.
        """
        points = torch.cat(preds.points)
        truth = [sample.gt_instances for sample in data_samples]
        return assign_targets(
            points, [x.segments.to(points.device) for x in truth],
            [x.labels.to(points.device) for x in truth], self.num_classes,
            self.center_radius, self.filter_similar)

    def positives(self, preds: DensePredictions,
                  data_samples: list) -> Tensor:
        """Points that are responsible for an action in real video.

        Args:
            preds: Predictions per level, for their points and masks.
            data_samples: As in :meth:`targets`.

        Returns:
            bool [B, P].
        """
        classes, _ = self.targets(preds, data_samples)
        return classes.any(-1) & torch.cat(preds.masks, dim=-1)

    def loss(self, preds: DensePredictions,
             data_samples: list) -> Dict[str, Tensor]:
        """Task losses.

        Args:
            preds: Predictions per level.
            data_samples: As in :meth:`targets`.

        Returns:
            ``loss_cls`` over all valid points and ``loss_reg`` over positive
            ones, both divided by the (in training: running) number of
            positive points. Without any they are finite and connected.
        """
        flat = flatten(preds)
        classes, offsets = self.targets(preds, data_samples)
        positive = classes.any(-1) & flat.valid
        normalizer = self._normalizer(positive.sum())

        smooth = self.label_smoothing
        classes = classes * (1 - smooth) + smooth / (self.num_classes + 1)
        loss_cls = self.loss_cls(
            flat.cls_logits[flat.valid], classes[flat.valid], reduction='sum')
        loss_reg = self.loss_reg(
            segments_at(flat.points, flat.reg_offsets)[positive],
            segments_at(flat.points, offsets)[positive],
            reduction='sum')
        loss_cls, loss_reg = loss_cls / normalizer, loss_reg / normalizer
        weight = self.reg_weight
        if weight <= 0:
            weight = loss_cls.detach() / loss_reg.detach().clamp(min=0.01)
        return dict(loss_cls=loss_cls, loss_reg=loss_reg * weight)

    def _normalizer(self, num_positives: Tensor) -> Tensor:
        """Divisor of the losses; in training the mean over processes."""
        count = num_positives.float().clamp(min=1)
        if not self.training:
            return count
        all_reduce(count, op='mean')
        momentum = self.normalizer_momentum
        self.loss_normalizer.mul_(momentum).add_(count, alpha=1 - momentum)
        return self.loss_normalizer.clone()


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
        [B, P, 2] in strides, float32. The distances have no meaning where no
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
