"""Convolutions in front of a video transformer."""
from typing import Sequence, Tuple

from torch import Tensor, nn


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
