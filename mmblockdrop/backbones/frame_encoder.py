"""Encoders of images, run frame by frame."""
from typing import Any, Optional

from mmblockdrop.registry import MODELS

import torch
from mmengine.model import BaseModule
from torch import Tensor

from .base import declared_independence
from .pretrained import load_pretrained


@MODELS.register_module()
class FrameEncoder(BaseModule):
    """Gives an image encoder the interface of a video encoder.

    Time is folded into the batch. ``mmaction.Recognizer2D`` does the same
    for recognizers; this serves localizers, which hold their encoder under
    ``backbone`` and give it clips. The blocks are at
    ``backbone.encoder.<path>``, e.g. ``backbone.encoder.layers``.

    Args:
        encoder: Config of the image encoder, such as
            ``dict(type='mmpretrain.ConvNeXt', arch='tiny')``. Where it returns
            several feature maps the last one counts. Of a transformer with
            ``out_type='raw'`` an image is its class token and the mean of its
            patch tokens, one behind the other, 2C channels.
        pretrained: Checkpoint of the image encoder that ``init_weights``
            loads, all of it or nothing, see
            :func:`~mmblockdrop.backbones.pretrained.load_pretrained`. Defaults
            to None.
        init_cfg: As in mmengine.
    """

    def __init__(self,
                 encoder: dict,
                 pretrained: Optional[str] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.encoder = MODELS.build(encoder)
        self.pretrained = pretrained

    def init_weights(self) -> None:
        """Initialize, then load ``pretrained`` if it is given."""
        super().init_weights()
        if self.pretrained:
            load_pretrained(self.encoder, self.pretrained)

    @property
    def clip_independent(self) -> Optional[bool]:
        """As the image encoder declares."""
        return declared_independence(self.encoder)

    def forward(self, x: Tensor) -> Tensor:
        """Encode clips.

        Args:
            x: Clips ``[clips, 3, frames, H, W]``.

        Returns:
            ``[clips, C, frames, h, w]``; h and w are 1 where the encoder
            returns a vector per image.

        Raises:
            ValueError: The encoder returns neither maps nor vectors.
        """
        clips, _, frames = x.shape[:3]
        features: Any = self.encoder(x.transpose(1, 2).flatten(0, 1))
        if isinstance(features, (tuple, list)):
            features = features[-1]
        if features.dim() == 3:
            features = self._pool_tokens(features)
        if features.dim() == 2:
            features = features[..., None, None]
        if features.dim() != 4:
            raise ValueError(
                f'backbone.encoder ({type(self.encoder).__name__}) returns '
                f'{list(features.shape)}, expected maps [images, C, h, w], '
                'tokens [images, N, C] or vectors [images, C]; for a '
                "transformer set out_type='featmap' or 'raw'")
        return features.unflatten(0, (clips, frames)).transpose(1, 2)

    def _pool_tokens(self, tokens: Tensor) -> Tensor:
        """Class token, if there is one, and mean of the patch tokens."""
        extra = getattr(self.encoder, 'num_extra_tokens', 0)
        mean = tokens[:, extra:].mean(1)
        return torch.cat([tokens[:, 0], mean], 1) if extra else mean
