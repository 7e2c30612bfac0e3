"""Neck between pyramid and head."""
from typing import List, Optional, Sequence, Tuple

from mmblockdrop.registry import MODELS

from mmengine.model import BaseModule
from torch import Tensor, nn

from .attention import ChannelNorm


@MODELS.register_module()
class FPNIdentity(BaseModule):
    """Layer norm per pyramid level, nothing across levels.

    Args:
        in_channels: Channels of the pyramid.
        out_channels: Channels of the output, the same number.
        num_levels: Levels of the pyramid.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: If the channels differ.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 num_levels: int,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if in_channels != out_channels:
            raise ValueError(
                f'neck.out_channels={out_channels}, but FPNIdentity cannot '
                f'change channels: expected neck.in_channels={in_channels}')
        self.num_levels = num_levels
        self.fpn_norms = nn.ModuleList(
            ChannelNorm(in_channels, eps=1e-6) for _ in range(num_levels))

    def forward(
            self, feats: Sequence[Tensor],
            masks: Sequence[Tensor]) -> Tuple[List[Tensor], List[Tensor]]:
        """Normalize every level.

        Args:
            feats: [B, C, T_l] per level.
            masks: bool [B, T_l] per level.

        Returns:
            Normalized features and the same masks.
        """
        feats = [norm(x) for norm, x in zip(self.fpn_norms, feats)]
        return feats, list(masks)
