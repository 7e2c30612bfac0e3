"""Convolutions and attention on sequences [B, C, T] with padding."""
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
        mask = mask[:, ::self.stride]  # at the centres of the kernel
        keep = mask.unsqueeze(1)
        x = self.conv(x)
        x = x * keep
        if self.norm is not None:
            x = F.relu(self.norm(x)) * keep
        return x, mask


class MaskedConvAttention(nn.Module):
    """Self-attention of ActionFormer (Zhang et al., ECCV 2022, section 3.2).

    Queries, keys and values pass a depthwise convolution, which gives
    positions and, with a stride, halves the sequence; then the attention is
    scaled dot-product attention over real steps, either all of them or those
    at most ``window_size // 2`` steps away.

    Args:
        channels: Channels in and out.
        num_heads: Attention heads; must divide ``channels``.
        stride: 1, or an even stride that shortens the sequence.
        window_size: Steps of the local window (at the output rate), -1 for
            global attention.
        attn_drop: Dropout on the attention weights.
        proj_drop: Dropout on the output.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``.
    """

    def __init__(self,
                 channels: int,
                 num_heads: int,
                 stride: int = 1,
                 window_size: int = -1,
                 attn_drop: float = 0.,
                 proj_drop: float = 0.) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'projection.num_heads={num_heads} does not '
                             f'divide projection.out_channels={channels}')
        self.num_heads = num_heads
        self.reach = window_size // 2 if window_size > 1 else -1
        self.attn_drop = attn_drop
        kernel = stride + 1 if stride > 1 else 3
        for name in ('query', 'key', 'value'):
            conv = MaskedConv(
                channels, channels, kernel, stride, channels, norm_act=False)
            setattr(self, f'{name}_conv', conv)
            setattr(self, f'{name}_norm', ChannelNorm(channels))
            setattr(self, name, conv1x1(channels, channels))
        self.proj = conv1x1(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: Sequence [B, C, T].
            mask: True at real steps, bool [B, T].

        Returns:
            Sequence and mask, ceil(T / stride) steps long.
        """
        query, out_mask = self._part('query', x, mask)
        key, _ = self._part('key', x, mask)
        value, _ = self._part('value', x, mask)
        drop = self.attn_drop if self.training else 0.
        if self.reach < 0:
            out = attend(query, key, value, out_mask[:, None, None], drop)
        else:
            out = attend_locally(query, key, value, out_mask, self.reach, drop)
        out = out.transpose(2, 3).flatten(1, 2)
        out = self.proj_drop(self.proj(out))
        return out * out_mask.unsqueeze(1), out_mask

    def _part(self, name: str, x: Tensor,
              mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Heads [B, H, T', C/H] of the queries, keys or values."""
        x, mask = getattr(self, f'{name}_conv')(x, mask)
        x = getattr(self, name)(getattr(self, f'{name}_norm')(x))
        return x.unflatten(1, (self.num_heads, -1)).transpose(2, 3), mask


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv1d:
    """Pointwise convolution whose bias starts at zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Returns:
        The layer.
    """
    conv = nn.Conv1d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.bias)
    return conv


def attend(query: Tensor,
           key: Tensor,
           value: Tensor,
           allowed: Tensor,
           dropout: float = 0.) -> Tensor:
    """Fused attention that stays finite where nothing is allowed.

    Args:
        query: [B, H, Q, D].
        key: [B, H, K, D].
        value: [B, H, K, D].
        allowed: bool, broadcastable to [B, H, Q, K].
        dropout: Dropout on the attention weights.

    Returns:
        [B, H, Q, D]; a query with no key allowed sees all of them.
    """
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    allowed = allowed.expand(-1, -1, query.size(2), -1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed, dropout_p=dropout)


def attend_locally(query: Tensor,
                   key: Tensor,
                   value: Tensor,
                   mask: Tensor,
                   reach: int,
                   dropout: float = 0.) -> Tensor:
    """Attention limited to a band, at cost T x window.

    Queries are cut into chunks of ``c`` steps; a chunk meets the ``c + 2
    reach`` keys around it and a band mask removes the ones too far away.

    Args:
        query: [B, H, T, D].
        key: [B, H, T, D].
        value: [B, H, T, D].
        mask: True at real steps, bool [B, T].
        reach: Largest distance in steps between a query and its keys.
        dropout: Dropout on the attention weights.

    Returns:
        [B, H, T, D].
    """
    batch, _, length, _ = query.shape
    chunk = min(length, max(2 * reach, 16))
    span = chunk + 2 * reach
    extra = -length % chunk
    query = F.pad(query, (0, 0, 0, extra)).unflatten(2, (-1, chunk))
    key, value = (
        F.pad(x, (0, 0, reach, reach + extra)).unfold(2, span, chunk)
        for x in (key, value))
    near = F.pad(mask, (reach, reach + extra)).unfold(1, span, chunk)
    distance = (
        torch.arange(span, device=query.device) - reach -
        torch.arange(chunk, device=query.device)[:, None])
    allowed = near.flatten(0, 1)[:, None, None] & (distance.abs() <= reach)
    out = attend(
        query.transpose(1, 2).flatten(0, 1),
        key.permute(0, 2, 1, 4, 3).flatten(0, 1),
        value.permute(0, 2, 1, 4, 3).flatten(0, 1), allowed, dropout)
    out = out.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
    return out[:, :, :length]
