"""A class head of its own for localizers that give proposals only."""
from typing import Dict, Optional, Tuple

from mmblockdrop.registry import MODELS
from mmblockdrop.structures.time_grid import seconds_to_steps, valid_share

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn


@MODELS.register_module()
class SnippetClassHead(BaseModule):
    """Classifies every grid step; a proposal takes the mean of its steps.

    A proposal of score ``p`` whose steps have the mean probability ``c`` for
    a class becomes a detection of that class with score ``p * c``, for its
    ``topk`` best classes.

    Args:
        in_channels: Channels of the features.
        num_classes: Classes.
        feat_channels: Width of the hidden layers. Defaults to 256.
        num_convs: Hidden layers. Defaults to 1.
        kernel_size: Of all convolutions. Defaults to 3.
        topk: Classes per proposal. Defaults to 2.
        prior_prob: Probability at the start. Defaults to 0.01.
        loss_cls: Loss on logits and targets, which is summed and divided by
            the number of positive entries.
        loss_weight: Factor of the loss. Defaults to 1.
    """

    def __init__(self,
                 in_channels: int,
                 num_classes: int,
                 feat_channels: int = 256,
                 num_convs: int = 1,
                 kernel_size: int = 3,
                 topk: int = 2,
                 prior_prob: float = 0.01,
                 loss_cls: dict = dict(type='mmblockdrop.FocalLoss'),
                 loss_weight: float = 1.,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.num_classes, self.topk = num_classes, min(topk, num_classes)
        layers = []
        for i in range(num_convs):
            layers += [
                nn.Conv1d(
                    feat_channels if i else in_channels,
                    feat_channels,
                    kernel_size,
                    padding=kernel_size // 2),
                nn.ReLU()
            ]
        self.convs = nn.Sequential(*layers)
        self.cls = nn.Conv1d(
            feat_channels if num_convs else in_channels,
            num_classes,
            kernel_size,
            padding=kernel_size // 2)
        odds = torch.tensor(prior_prob / (1 - prior_prob))
        nn.init.constant_(self.cls.bias, odds.log().item())
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_weight = loss_weight

    def forward(self, feats: Tensor) -> Tensor:
        """Logits of steps.

        Args:
            feats: Features ``[B, C, T]``.

        Returns:
            ``[B, classes, T]``.
        """
        return self.cls(self.convs(feats))

    def loss(self, feats: Tensor, data_samples: list) -> Dict[str, Tensor]:
        """Loss on all steps that hold real video.

        Args:
            feats: Features ``[B, C, T]``.
            data_samples: Windows with ``gt_instances`` in steps of
                ``window_size``, which defaults to T.

        Returns:
            ``loss_class``.
        """
        logits = self(feats)
        steps = logits.shape[-1]
        target = torch.stack([
            self.targets(
                sample.gt_instances.segments * steps /
                sample.get('window_size', steps), sample.gt_instances.labels,
                steps) for sample in data_samples
        ]).to(logits)
        mask = valid_mask(logits, data_samples)[:, None].expand_as(logits)
        total = self.loss_cls(logits[mask], target[mask], reduction='sum')
        positive = target[mask].sum().clamp(min=1)
        return dict(loss_class=self.loss_weight * total / positive)

    def targets(self, segments: Tensor, labels: Tensor,
                steps: int) -> Tensor:
        """Which steps show which action.

        Args:
            segments: ``[N, 2]`` in steps.
            labels: ``[N]``.
            steps: T.

        Returns:
            ``[classes, T]``, 1 where the middle of a step lies in an action;
            an action between two middles marks the step that it is in.
        """
        target = torch.zeros(self.num_classes, steps, device=segments.device)
        middle = torch.arange(steps, device=segments.device) + 0.5
        start, end = segments[:, :1], segments[:, 1:]
        inside = (middle >= start) & (middle <= end)
        nearest = ((start + end) / 2).floor().clamp(0, steps - 1).long()
        inside.scatter_(1, nearest, True)
        for label, steps_of in zip(labels.tolist(), inside):
            target[label, steps_of] = 1
        return target

    def classify(self, feats: Tensor, data_samples: list) -> None:
        """Turn the proposals of windows into detections with a class.

        Args:
            feats: Features ``[B, C, T]``.
            data_samples: Windows with ``pred_instances``: ``segments`` in
                seconds and ``scores`` of proposals.
        """
        for logits, sample in zip(self(feats), data_samples):
            found, steps = sample.pred_instances, logits.shape[-1]
            segments = seconds_to_steps(found.segments, sample.metainfo)
            segments = segments * steps / sample.get('window_size', steps)
            index, scores, labels = self.best_classes(
                logits, segments.to(logits), found.scores.to(logits))
            sample.pred_instances = InstanceData(
                segments=found.segments[index.to(found.segments.device)],
                scores=scores,
                labels=labels)

    def best_classes(self, logits: Tensor, segments: Tensor,
                     scores: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Detections from the proposals of one window.

        Args:
            logits: ``[classes, T]``.
            segments: Proposals ``[N, 2]`` in steps.
            scores: ``[N]``.

        Returns:
            Index of the proposal, score and label of ``N * topk`` detections.
        """
        prob = segment_mean(logits.float().sigmoid(), segments)
        best, labels = prob.topk(self.topk, dim=1)
        index = torch.arange(len(segments), device=segments.device)
        index = index[:, None].expand_as(labels)
        return (index.flatten(), (best * scores[:, None]).flatten(),
                labels.flatten())


def valid_mask(feats: Tensor, data_samples: list) -> Tensor:
    """Steps that show real video.

    Args:
        feats: Features ``[B, C, T]``.
        data_samples: Samples; ``valid_steps`` of ``window_size`` are real.

    Returns:
        bool ``[B, T]``.
    """
    length = feats.size(-1)
    share = [valid_share(x, length) for x in data_samples]
    start = torch.arange(length, device=feats.device) / length
    return start < torch.tensor(share, device=feats.device)[:, None]


def segment_mean(values: Tensor, segments: Tensor) -> Tensor:
    """Mean of step-wise values over segments with fractional ends.

    Args:
        values: ``[K, T]``; a value holds over its whole step.
        segments: ``[N, 2]`` in steps, cut to ``[0, T]``.

    Returns:
        ``[N, K]``; the value at the place for a segment shorter than a
        hundredth of a step.
    """
    steps = values.shape[1]
    total = F.pad(values.double().cumsum(1), (1, 0))
    middle = segments.double().mean(1, keepdim=True)
    half = (segments[:, 1:] - segments[:, :1]).double() / 2
    half = half.clamp(min=0.005)
    ends = torch.cat((middle - half, middle + half), 1).clamp(0, steps)
    low = ends.floor().long().clamp(max=steps - 1)
    area = total[:, low] + (ends - low) * values.double()[:, low]
    length = (ends[:, 1] - ends[:, 0]).clamp(min=1e-9)
    return ((area[..., 1] - area[..., 0]) / length).T.to(values)
