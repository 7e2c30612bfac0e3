"""From clip features to a temporal pyramid."""
import math
from typing import List, Optional, Sequence, Tuple, Union

from mmblockdrop.compression.spec import BlockSpec, Stack
from mmblockdrop.registry import MODELS

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from .attention import ChannelNorm, MaskedConv, MaskedConvAttention, conv1x1


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


class ConvTransformerBlock(nn.Module):
    """Pre-norm transformer block on [B, C, T] with optional stride.

    Args:
        channels: Channels in and out.
        num_heads: Attention heads.
        stride: 1 or 2; the shortcut is max-pooled accordingly.
        window_size: Local attention window in steps, -1 for global.
        attn_drop: Dropout on the attention weights.
        proj_drop: Dropout behind attention and in the FFN.
        path_drop: Stochastic depth. Above 0 the branches also get a
            learnable factor per channel (:class:`AffineDropPath`).
    """

    def __init__(self,
                 channels: int,
                 num_heads: int,
                 stride: int = 1,
                 window_size: int = -1,
                 attn_drop: float = 0.,
                 proj_drop: float = 0.,
                 path_drop: float = 0.) -> None:
        super().__init__()
        self.ln1 = ChannelNorm(channels)
        self.attn = MaskedConvAttention(channels, num_heads, stride,
                                        window_size, attn_drop, proj_drop)
        self.pool_skip = nn.MaxPool1d(
            stride + 1, stride,
            (stride + 1) // 2) if stride > 1 else nn.Identity()
        self.ln2 = ChannelNorm(channels)
        self.mlp = nn.Sequential(
            conv1x1(channels, 4 * channels), nn.GELU(), nn.Dropout(proj_drop),
            conv1x1(4 * channels, channels), nn.Dropout(proj_drop))
        for name in ('drop_path_attn', 'drop_path_mlp'):
            path = AffineDropPath(channels, path_drop) if path_drop > 0 \
                else nn.Identity()
            setattr(self, name, path)

    def forward(self, x: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Mix steps, then channels.

        Args:
            x: Sequence [B, C, T], zero at padding.
            mask: True at real steps, bool [B, T].

        Returns:
            Sequence and mask, ceil(T / stride) steps long.
        """
        out, mask = self.attn(self.ln1(x), mask)
        keep = mask.unsqueeze(1)
        x = self.pool_skip(x) * keep + self.drop_path_attn(out)
        return x + self.drop_path_mlp(self.mlp(self.ln2(x)) * keep), mask


def _why_fixed(block: nn.Module) -> Optional[str]:
    """Blocks of the branch are the levels of the pyramid."""
    if isinstance(getattr(block, 'pool_skip', None), nn.MaxPool1d):
        return 'halves the rate of the feature grid'
    return None


@MODELS.register_module()
class ConvTransformerProjection(BaseModule):
    """Convolutional embedding, transformer stem and strided branch.

    The encoder of ActionFormer (Zhang et al., ECCV 2022): ``arch[0]``
    convolutions embed the features, ``arch[1]`` transformer blocks mix them
    at full rate, and each of ``arch[2]`` further blocks halves the rate. The
    output of the stem and of every branch block is a level of the pyramid.

    Args:
        in_channels: Channels of the features.
        out_channels: Channels of the pyramid.
        arch: Numbers of convolutions, stem blocks and branch blocks.
        kernel_size: Kernel of the embedding, odd.
        num_heads: Attention heads.
        window_size: Local attention window in steps of each level, -1 for
            global; one number, or one for the stem and each branch block.
        attn_drop: Dropout on the attention weights.
        proj_drop: Dropout behind attention and in the FFN.
        path_drop: Stochastic depth, see :class:`ConvTransformerBlock`.
        input_drop: Dropout of whole input channels.
        use_abs_pe: Add sinusoids for the absolute position.
        max_seq_len: Steps the sinusoids are made for; longer sequences get
            them interpolated.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: If ``window_size`` does not fit ``arch``.
    """

    block_spec = BlockSpec(
        stacks=(Stack('embed', 'arch.0', shortened=False),
                Stack('stem', 'arch.1'), Stack('branch', 'arch.2')),
        why_fixed=_why_fixed,
        writes={
            'attn.proj': 'drop_path_attn.scale',
            'mlp.3': 'drop_path_mlp.scale'
        })

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 arch: Tuple[int, int, int] = (2, 2, 5),
                 kernel_size: int = 3,
                 num_heads: int = 4,
                 window_size: Union[int, Sequence[int]] = -1,
                 attn_drop: float = 0.,
                 proj_drop: float = 0.,
                 path_drop: float = 0.1,
                 input_drop: float = 0.,
                 use_abs_pe: bool = False,
                 max_seq_len: int = 2304,
                 init_cfg: Union[dict, List[dict], None] = None) -> None:
        super().__init__(init_cfg)
        convs, stem, branch = arch
        if isinstance(window_size, int):
            window_size = [window_size] * (1 + branch)
        if len(window_size) != 1 + branch:
            raise ValueError(
                f'projection.window_size has {len(window_size)} entries, '
                f'expected {1 + branch}: one for the stem and one for each '
                f'of the {branch} branch blocks of projection.arch={arch}')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_levels = 1 + branch
        drops = (attn_drop, proj_drop, path_drop)
        self.input_drop = nn.Dropout1d(input_drop)
        self.embed = nn.ModuleList(
            MaskedConv(out_channels if i else in_channels, out_channels,
                       kernel_size) for i in range(convs))
        self.stem = nn.ModuleList(
            ConvTransformerBlock(out_channels, num_heads, 1, window_size[0],
                                 *drops) for _ in range(stem))
        self.branch = nn.ModuleList(
            ConvTransformerBlock(out_channels, num_heads, 2, size, *drops)
            for size in window_size[1:])
        table = sinusoids(max_seq_len, out_channels) if use_abs_pe else None
        self.register_buffer('pos_embed', table, persistent=False)

    def forward(self, x: Tensor,
                mask: Tensor) -> Tuple[List[Tensor], List[Tensor]]:
        """Build the pyramid.

        Args:
            x: Features [B, in_channels, T].
            mask: True at real steps, bool [B, T].

        Returns:
            Features [B, out_channels, T_l] and masks [B, T_l] per level,
            finest first, T_l = ceil(T / 2**l).
        """
        x = self.input_drop(x)
        for conv in self.embed:
            x, mask = conv(x, mask)
        if self.pos_embed is not None:
            x = x + self._positions(x.size(-1)) * mask.unsqueeze(1)
        for block in self.stem:
            x, mask = block(x, mask)
        feats, masks = [x], [mask]
        for block in self.branch:
            x, mask = block(x, mask)
            feats.append(x)
            masks.append(mask)
        return feats, masks

    def _positions(self, length: int) -> Tensor:
        if length <= self.pos_embed.size(-1):
            return self.pos_embed[..., :length]
        return F.interpolate(self.pos_embed, length, mode='linear')


def sinusoids(length: int, channels: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al., 2017) over sqrt(channels).

    Args:
        length: Number of steps.
        channels: Number of channels; even ones are sines, odd ones cosines.

    Returns:
        [1, channels, length].
    """
    channel = torch.arange(channels, dtype=torch.float64)[:, None]
    rate = 10000**(-2 * (channel // 2) / channels)
    angle = torch.arange(length, dtype=torch.float64) * rate
    wave = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return (wave.float() / math.sqrt(channels)).unsqueeze(0)
