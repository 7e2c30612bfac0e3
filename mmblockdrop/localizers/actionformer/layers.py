"""Layers for masked sequences [B, C, T] that neck and head share."""
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [B, C, T]."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize every step.

        Args:
            x: Sequence [B, C, T].

        Returns:
            Sequence of the same shape.
        """
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def pool_mask(mask: Tensor, stride: int) -> Tensor:
    """Mask after a convolution with odd kernel, same padding and stride.

    Args:
        mask: bool [B, T].
        stride: Stride of the convolution.

    Returns:
        bool [B, ceil(T / stride)]: the mask at the kernel centres.
    """
    return mask[:, ::stride]


class MaskedConv(nn.Module):
    """Convolution that never lets padding leak into real steps.

    The output is masked before the norm and again at the end.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd kernel size.
        stride: Stride in steps.
        groups: Groups; ``in_channels`` makes it depthwise.
        norm_act: Whether layer norm and ReLU follow.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int = 3,
                 stride: int = 1,
                 groups: int = 1,
                 norm_act: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False)
        self.norm = ChannelNorm(out_channels, eps=1e-6) if norm_act else None

    def forward(self, x: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            x: Sequence [B, C, T].
            mask: True at real steps, bool [B, T].

        Returns:
            Sequence and mask, ceil(T / stride) steps long.
        """
        mask = pool_mask(mask, self.stride)
        keep = mask.unsqueeze(1)
        x = self.conv(x)
        x = x * keep
        if self.norm is not None:
            x = F.relu(self.norm(x)) * keep
        return x, mask


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


class AffineDropPath(nn.Module):
    """Stochastic depth behind a learnable factor per channel.

    The factor starts near zero (LayerScale, Touvron et al., ICCV 2021) and
    acts in evaluation too; only the dropping is limited to training.

    Args:
        channels: Channels of the branch.
        drop_prob: Probability to drop the branch of a sample.
        init_value: Where the factors start.
    """

    def __init__(self,
                 channels: int,
                 drop_prob: float = 0.,
                 init_value: float = 1e-4) -> None:
        super().__init__()
        start = torch.full((1, channels, 1), float(init_value))
        self.scale = nn.Parameter(start)
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Scale the branch and, in training, drop it for some samples.

        Args:
            x: Output of the branch [B, C, T].

        Returns:
            [B, C, T].
        """
        x = x * self.scale
        if self.training and self.drop_prob > 0:
            keep = 1 - self.drop_prob
            kept = x.new_empty(x.size(0), 1, 1).bernoulli_(keep)
            x = x * (kept / keep)
        return x
