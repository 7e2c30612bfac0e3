"""The video transformer for small data sets, trained from scratch.

Convolutions in front of the blocks, attention along clips that are longer
than the position table, and residual branches with small initial weights.
"""
import math
import re
from dataclasses import replace
from typing import Any, Iterable, List, Optional, Sequence, Tuple, Union

from mmblockdrop.compression.spec import Stack
from mmblockdrop.registry import MODELS, WEIGHT_INITIALIZERS

import torch
from mmengine.model.weight_init import update_init_info
from torch import Tensor, nn

from .vit import LoRAViT, ViTAttention


@MODELS.register_module()
class SmallViT(LoRAViT):
    """:class:`~.vit.LoRAViT` for small data sets without pretrained weights.

    Args:
        stem: Arguments of :class:`ConvStem`, which then takes the place of the
            patch embedding. Defaults to None, the projection of VideoMAE.
        shifted_windows: Take clips longer than ``num_frames``: a block attends
            within windows of ``num_frames`` frames, and the windows of every
            second block, or of those marked True in a list with one entry per
            block, lie half a window later (Liu et al., Swin Transformer, ICCV
            2021, here along time). So what a token sees grows with every
            block. The table of positions is repeated. Defaults to False, all
            of a clip.
        **kwargs: Arguments of :class:`~.vit.LoRAViT`.

    Raises:
        ValueError: ``shifted_windows`` has another length than the stack, or
            the stem does not fit ``patch_size``.
    """
    patch_embed: nn.Module
    block_spec = replace(
        LoRAViT.block_spec,
        stacks=(Stack('blocks', 'depth', per_block=('shifted_windows', )), ))

    def __init__(self,
                 *,
                 stem: Optional[dict] = None,
                 shifted_windows: Union[bool, Sequence[bool]] = False,
                 **kwargs) -> None:
        self.stem = stem
        self.shifted_windows = shifted_windows
        super().__init__(**kwargs)

    def _replace_layers(self) -> None:
        """Put stem and attention of our own into a fresh transformer."""
        if self.stem is not None:
            projection = self.patch_embed.projection
            self.patch_embed: Any = ConvStem(projection.in_channels,
                                        self.embed_dims, self.patch_size,
                                        projection.stride[0], **self.stem)
        windows = self.shifted_windows
        places = self.grid_size[0] * self.grid_size[1]
        tokens = self.pos_embed.shape[1]
        half = tokens // places // 2 * places
        shifts = self._shifted(windows)
        self.window = tokens if windows else None
        # One entry per block, of which an export leaves out the dropped.
        self.shifted_windows = shifts if windows else False
        for block, shifted in zip(self.blocks, shifts):
            block.attn = WindowAttention.like(block.attn)
            block.attn.window = self.window
            block.attn.shift = half if shifted else 0

    def _shifted(self, windows: Union[bool, Sequence[bool]]) -> List[bool]:
        """Whether the windows of each block lie half a window later."""
        depth = len(self.blocks)
        if isinstance(windows, bool):
            return [windows and index % 2 == 1 for index in range(depth)]
        if len(windows) != depth:
            raise ValueError(
                f'backbone.shifted_windows has {len(windows)} entries, '
                f'expected one per block: backbone.depth={depth}')
        return list(windows)

    def positions(self, t: int, h: int, w: int) -> Tensor:
        """Position codes; repeated for clips longer than the table.

        Args:
            t: Tokens along time.
            h: Tokens down.
            w: Tokens across.

        Returns:
            ``[1, t * h * w, C]``.

        Raises:
            ValueError: With shifted windows pictures have another size than
                ``img_size``.
        """
        if self.window is None:
            return super().positions(t, h, w)
        if (h, w) != self.grid_size:
            size = self.grid_size[0] * self.patch_size
            found = (h * self.patch_size, w * self.patch_size)
            raise ValueError(
                f'backbone.shifted_windows takes pictures of backbone.img_size'
                f'={size}, found {found}: its windows are counted in tokens')
        tokens = t * h * w
        repeats = -(-tokens // self.window)
        return self.pos_embed.repeat(1, repeats, 1)[:, :tokens]


class WindowAttention(ViTAttention):
    """Attention within windows of consecutive tokens.

    Attributes:
        window: Consecutive tokens that see each other. Defaults to None, all
            tokens of a clip.
        shift: Tokens by which the first window is shorter; the last one has
            the rest. Defaults to 0.
    """
    window: Optional[int] = None
    shift = 0

    def _attend(self, qkv: Tensor) -> Tensor:
        """See :class:`~.vit.ViTAttention`; window by window."""
        parts = []
        for part, length in self._windows(qkv):
            seen = super()._attend(part.reshape(-1, length, part.shape[-1]))
            parts.append(seen.reshape(len(part), -1, seen.shape[-1]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _windows(self, x: Tensor) -> List[Tuple[Tensor, int]]:
        """Stretches of tokens, each with the length of its windows."""
        tokens = x.shape[1]
        if self.window is None or tokens <= self.window - self.shift:
            return [(x, tokens)]
        first = (self.window - self.shift) % self.window
        last = (tokens - first) % self.window
        stretches = x.split([first, tokens - first - last, last], 1)
        return [(part, min(self.window, part.shape[1]))
                for part in stretches if part.shape[1]]


class ConvStem(nn.Module):
    """Tokens from a few 3 x 3 x 3 convolutions instead of one projection.

    A transformer trained from scratch on little data does not find motion
    in raw patches; convolutions show it to the first block (Xiao et al.,
    Early Convolutions Help Transformers See Better, arXiv 2106.14881). Each
    convolution, with batch normalisation and ReLU, halves height and width;
    the second one divides time by ``tubelet_size``, so that the first sees
    every frame.

    Args:
        in_channels: Channels of the frames.
        embed_dims: Width of the tokens, given by the last convolution.
        patch_size: Pixels of a token's side, 2 to the number of convolutions.
        tubelet_size: Frames of a token.
        channels: Width of all convolutions but the last. Defaults to three,
            for patches of 16.

    Raises:
        ValueError: ``patch_size`` is not what the convolutions give.
    """

    def __init__(self,
                 in_channels: int,
                 embed_dims: int,
                 patch_size: int,
                 tubelet_size: int,
                 channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        widths = [*channels, embed_dims]
        if patch_size != 2**len(widths) or len(widths) < 2:
            raise ValueError(
                f'backbone.patch_size={patch_size}, but a stem with channels '
                f'{list(channels)} gives patches of {2**len(widths)}')
        layers = []
        for i, width in enumerate(widths):
            stride = (tubelet_size if i == 1 else 1, 2, 2)
            layers += [
                nn.Conv3d(in_channels, width, 3, stride, 1, bias=False),
                nn.BatchNorm3d(width),
                nn.ReLU(inplace=True)
            ]
            in_channels = width
        self.convs = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tuple[int, ...]]:
        """Turn clips into tokens, as mmcv's ``PatchEmbed`` does.

        Args:
            x: Clips ``[clips, channels, frames, H, W]``.

        Returns:
            Tokens ``[clips, t * h * w, C]`` and their grid ``(t, h, w)``.
        """
        x = self.convs(x)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])


@WEIGHT_INITIALIZERS.register_module()
class ScaleWeights:
    """Multiply weights by a factor, after the initializers listed before it.

    For the last layers of residual branches, ``attn.proj`` and
    ``mlp.layers.1`` of a transformer. With small weights there, a block
    changes its input little at first, which helps deep stacks to start
    learning (GPT-2 scales by one over the square root of the number of
    branches).

    Args:
        layers: Ends of the dotted names of the layers.
        factor: What their weights are multiplied by.

    Raises:
        ValueError: The factor is not finite, or ``layers`` is empty; when
            called, no layer with a weight has a name that ends with an
            entry of ``layers``.
    """

    def __init__(self, layers: Sequence[str], factor: float) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(
                f'ScaleWeights.layers={layers!r}, expected a list of ends of '
                "names of layers, e.g. ['attn.proj', 'mlp.layers.1']")
        if not math.isfinite(factor):
            raise ValueError(
                f'ScaleWeights.factor={factor}, expected a finite number')
        self.layers = tuple(layers)
        self.factor = factor

    def __call__(self, module: nn.Module) -> None:
        """Scale in place.

        Args:
            module: What holds the layers.
        """
        weights = {
            name: layer.weight
            for name, layer in module.named_modules()
            if isinstance(getattr(layer, 'weight', None), nn.Parameter)
        }
        for end in self.layers:
            found = [
                weight for name, weight in weights.items()
                if f'.{name}'.endswith(f'.{end}')
            ]
            if not found:
                raise ValueError(
                    f'ScaleWeights.layers: no layer of '
                    f'{type(module).__name__} has a name that ends with '
                    f'{end!r}; there are {_ends(weights)}')
            with torch.no_grad():
                for weight in found:
                    weight.mul_(self.factor)
        if hasattr(module, '_params_init_info'):
            update_init_info(
                module,
                init_info=f'ScaleWeights: factor={self.factor}, '
                f'layers={list(self.layers)}')


def _ends(names: Iterable[str]) -> List[str]:
    """Names within a block, each once."""
    return sorted({re.sub(r'^.*?\d+\.', '', name) for name in names})
