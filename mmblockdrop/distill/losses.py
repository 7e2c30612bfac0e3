"""Distances between what the student and the teacher compute."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmblockdrop.registry import MODELS


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Mean of squared differences over all elements."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two features.

        Args:
            student (Tensor): Any shape.
            teacher (Tensor): The same shape.

        Returns:
            Tensor: Scalar.
        """
        return F.mse_loss(student.float(), teacher.float())


@MODELS.register_module()
class TokenRelationLoss(nn.Module):
    """Difference of the token by token Gram matrices.

    Features are divided by the number of tokens before the product;
    squared differences are summed in a clip and averaged over clips.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two features.

        Args:
            student (Tensor): Tokens ``[clips, tokens, C]``.
            teacher (Tensor): The same shape.

        Returns:
            Tensor: Scalar.
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
        temperature (float): Logits are divided by it, the loss multiplied
            by its square. Defaults to 3.5 (the published configs).
        activation (str): 'softmax' compares distributions over classes, as
            published; 'sigmoid' compares every class against its absence,
            which is what a sigmoid head means and the only choice that
            carries anything when there is one class.

    Raises:
        ValueError: Unknown ``activation``; or a softmax over one class.
    """

    def __init__(self,
                 temperature: float = 3.5,
                 activation: str = 'softmax') -> None:
        super().__init__()
        if activation not in ('softmax', 'sigmoid'):
            raise ValueError(f'ClassKLLoss.activation is {activation!r}, '
                             "expected 'softmax' or 'sigmoid'")
        self.temperature = temperature
        self.activation = activation

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the logits of points.

        Args:
            student (Tensor): Logits ``[points, classes]``.
            teacher (Tensor): The same shape.

        Returns:
            Tensor: Scalar, summed over classes and averaged over points.
        """
        t = self.temperature
        student, teacher = student.float() / t, teacher.float() / t
        if self.activation == 'sigmoid':
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
        alpha (float): Weight of the part on target against the rest.
        beta (float): Weight of the part among the other classes.
        temperature (float): As in :class:`ClassKLLoss`.
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
            student (Tensor): Logits ``[points, classes]``.
            teacher (Tensor): The same shape.
            targets (Tensor): Positive classes, ``[points, classes]``.

        Returns:
            Tensor: Scalar. Zero when no row has a positive class.

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
