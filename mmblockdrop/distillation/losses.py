"""Distances between what the student and the teacher compute."""
from typing import Optional, Tuple

from mmblockdrop.registry import MODELS

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Mean of squared differences over all elements.

    Only the difference is kept for the backward pass.
    """

    #: Every token is compared for itself, so padded ones can be left out.
    tokenwise = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two features.

        Args:
            student: Any shape.
            teacher: The same shape.

        Returns:
            Scalar, zero where there are no elements.
        """
        gap = student.float() - teacher.float()
        return gap.square().mean() if gap.numel() else gap.sum()


@MODELS.register_module()
class TokenRelationLoss(nn.Module):
    """Difference of the token by token Gram matrices.

    Features are divided by the number of tokens before the product;
    squared differences are summed in a clip and averaged over clips.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two features.

        Args:
            student: Tokens ``[clips, tokens, C]``.
            teacher: The same shape.

        Returns:
            Scalar.
        """
        gap = self._gram(student.float()) - self._gram(teacher.float())
        return gap.square().sum(dim=(1, 2)).mean()

    @staticmethod
    def _gram(x: Tensor) -> Tensor:
        x = x / x.shape[1]
        return x @ x.transpose(1, 2)


@MODELS.register_module()
class ClassKLLoss(nn.Module):
    """Kullback-Leibler divergence of class scores at a temperature.

    Args:
        temperature: Logits are divided by it, the loss multiplied by its
            square. Defaults to 3.5 (the published configs).
        activation: 'softmax' compares distributions over classes, as
            published; 'sigmoid' compares every class against its absence,
            which is what a sigmoid head means and the only choice that carries
            anything when there is one class. Defaults to None, 'sigmoid' for
            one class and 'softmax' for several.

    Raises:
        ValueError: Unknown ``activation``; or a softmax over one class.
    """

    def __init__(self,
                 temperature: float = 3.5,
                 activation: Optional[str] = None) -> None:
        super().__init__()
        if activation not in (None, 'softmax', 'sigmoid'):
            raise ValueError(f'ClassKLLoss.activation is {activation!r}, '
                             "expected 'softmax' or 'sigmoid'")
        self.temperature = temperature
        self.activation = activation

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the logits of points.

        Args:
            student: Logits ``[points, classes]``.
            teacher: The same shape.

        Returns:
            Scalar, summed over classes and averaged over points.
        """
        t = self.temperature
        student, teacher = student.float() / t, teacher.float() / t
        activation = self.activation or (
            'sigmoid' if student.shape[1] == 1 else 'softmax')
        if activation == 'sigmoid':
            target = teacher.sigmoid()
            loss = (F.binary_cross_entropy_with_logits(
                student, target, reduction='none') -
                    F.binary_cross_entropy_with_logits(
                        teacher, target, reduction='none'))
        elif student.shape[1] == 1:
            raise ValueError(
                'ClassKLLoss with a softmax over one class is always zero: '
                "set activation='sigmoid'.")
        else:
            loss = F.kl_div(
                student.log_softmax(1),
                teacher.log_softmax(1),
                reduction='none',
                log_target=True)
        return loss.sum() * t**2 / max(len(loss), 1)


@MODELS.register_module()
class ClassDKDLoss(nn.Module):
    """Decoupled knowledge distillation (arXiv 2203.08679, equation 7).

    All positive classes of a row form the target mass. Rows without a
    positive class contribute nothing, but count in the average.

    Args:
        alpha: Weight of the part on target against the rest.
        beta: Weight of the part among the other classes.
        temperature: As in :class:`ClassKLLoss`.
    """

    needs_targets = True

    def __init__(self,
                 alpha: float = 1.,
                 beta: float = 6.,
                 temperature: float = 3.5) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, student: Tensor, teacher: Tensor,
                targets: Tensor) -> Tensor:
        """Compare the logits of points.

        Args:
            student: Logits ``[points, classes]``.
            teacher: The same shape.
            targets: Positive classes, ``[points, classes]``.

        Returns:
            Scalar. Zero when no row has a positive class.

        Raises:
            ValueError: Fewer than two classes.
        """
        if student.shape[1] < 2:
            raise ValueError('ClassDKDLoss needs at least two classes.')
        rows = len(student)
        kept = (targets > 0).any(1)
        positive = targets[kept] > 0
        s = student[kept].float() / self.temperature
        t = teacher[kept].float() / self.temperature
        if not len(s):
            return student.sum() * 0
        target_part = F.kl_div(
            self._two_way(s, positive),
            self._two_way(t, positive),
            reduction='sum',
            log_target=True)
        other_part = F.kl_div(
            s.masked_fill(positive, -1000.).log_softmax(1),
            t.masked_fill(positive, -1000.).log_softmax(1),
            reduction='sum',
            log_target=True)
        loss = self.alpha * target_part + self.beta * other_part
        return loss * self.temperature**2 / rows

    @staticmethod
    def _two_way(logits: Tensor, positive: Tensor) -> Tensor:
        """Log probability of target and of the rest, ``[rows, 2]``."""
        log_p = logits.log_softmax(1)
        low = torch.finfo(log_p.dtype).min
        return torch.stack(
            (log_p.masked_fill(~positive, low).logsumexp(1),
             log_p.masked_fill(positive, low).logsumexp(1)), 1)


@MODELS.register_module()
class BinaryKLLoss(nn.Module):
    """Kullback-Leibler divergence of probabilities, element by element.

    Every element is the probability of an event: an action at a step, a
    start or an end there, a proposal that covers an action. The loss is the
    mean over elements of ``t log(t / s) + (1 - t) log((1 - t) / (1 - s))``,
    zero where both agree.

    Args:
        logits: The elements come before the sigmoid. Defaults to False,
            probabilities between 0 and 1.
        scale: Factor of the logits ahead of the sigmoid, where the localizer
            has one (``conv3_ratio`` of TEM, ``fc2_ratio`` of PEM). Defaults to
            1.
        eps: Probabilities are kept this far from 0 and 1.

    Raises:
        ValueError: A ``scale`` without ``logits``; or elements outside
            [0, 1] that are said to be probabilities.
    """

    def __init__(self,
                 logits: bool = False,
                 scale: float = 1.,
                 eps: float = 1e-6) -> None:
        super().__init__()
        if scale != 1 and not logits:
            raise ValueError(f'BinaryKLLoss.scale={scale} is a factor of '
                             'logits: set logits=True')
        self.logits, self.scale, self.eps = logits, scale, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two tensors of probabilities.

        Args:
            student: Any shape; an empty one gives 0.
            teacher: The same shape.

        Returns:
            Scalar.
        """
        log_s, log_not_s = self._logs(student.float())
        log_t, log_not_t = self._logs(teacher.float())
        loss = log_t.exp() * (log_t - log_s)
        loss = loss + log_not_t.exp() * (log_not_t - log_not_s)
        return loss.sum() / max(loss.numel(), 1)

    def _logs(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Logarithms of the probability and of its complement."""
        if self.logits:
            x = x * self.scale
            return F.logsigmoid(x), F.logsigmoid(-x)
        if x.numel() and (x.min() < -self.eps or x.max() > 1 + self.eps):
            raise ValueError(
                'BinaryKLLoss was given values from '
                f'{x.min().item():.3g} to {x.max().item():.3g}, which are no '
                'probabilities: set logits=True')
        x = x.clamp(self.eps, 1 - self.eps)
        return x.log(), (1 - x).log()
