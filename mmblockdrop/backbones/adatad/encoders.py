"""Encoders with adapters: our video transformer, and any stack of blocks."""
from dataclasses import replace
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.compression.lora import has_lora
from mmblockdrop.compression.spec import BlockSpec, Stack
from mmblockdrop.registry import MODELS

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..base import declared_independence, takes_windows
from ..vit import LoRAViT
from .adapter import (Clips, Windows, adapters_of, add_adapters, fold_adapters,
                      reset_adapters, set_modes, temporal_reach)

#: Parts of the names of the parameters that are trained.
TRAINED = ('adapter', 'lora_')


def _mixes_clips(encoder: nn.Module) -> bool:
    """Whether an adapter that remains carries time across clips."""
    return any(adapter.temporal for adapter in adapters_of(encoder).values())


def _fold(encoder: Any) -> Dict[str, Any]:
    """Fold adapters for an export; arguments of the config that change."""
    fold_adapters(encoder)
    blocks = [i for i, block in enumerate(encoder.blocks)
              if hasattr(block, 'adapter')]
    if blocks:
        return dict(adapters=dict(encoder.adapters, blocks=blocks))
    encoder.adapters = {}
    return dict(
        type='mmblockdrop.LoRAViT',
        adapters=None,
        stochastic_depth=None,
        trainable=None)


@MODELS.register_module()
class AdapterViT(LoRAViT):
    """AdaTAD's encoder: a frozen VideoMAE transformer with adapters.

    Names of parameters are those of ``LoRAViT``, so the same checkpoints
    load; adapters are at ``blocks.i.adapter.*``. Everything else is frozen
    and, but for stochastic depth, in evaluation mode also in training.

    Args:
        adapters: Where adapters are, and their form: ``blocks`` (numbers;
            all if left out), ``ratio`` (0.25), ``temporal`` (True, across
            clips; False for plain adapters), ``kernel_size`` (3) and
            ``dilation`` (1); and ``side`` (False), the side network: the
            frozen blocks run without a graph, and what their adapters find is
            added to the output of the last block that has one.
        stochastic_depth: Whether ``drop_path_rate`` acts on the frozen blocks
            in training, as in the published recipe.
        trainable: Parts of the names of the parameters that are trained.
            Defaults to adapters, and LoRA where it is attached.
        **kwargs: Arguments of :class:`~mmblockdrop.backbones.LoRAViT`.

    Raises:
        ValueError: An entry of ``adapters`` does not fit, or a side network
            carries LoRA, which would get no gradients.
    """
    block_spec = replace(
        LoRAViT.block_spec,
        stacks=(Stack('blocks', 'depth', subsets=('adapters.blocks', )), ),
        writes={**LoRAViT.block_spec.writes, 'adapter.up_proj':
                'adapter.gamma'},
        facts=temporal_reach,
        fold=_fold)

    def __init__(self,
                 *,
                 adapters: Optional[dict] = None,
                 stochastic_depth: bool = True,
                 trainable: Optional[Sequence[str]] = TRAINED,
                 **kwargs: Any) -> None:
        self.adapters = dict(adapters or {})
        self.side = self.adapters.get('side', False)
        self.stochastic_depth = stochastic_depth
        self.trained = tuple(trainable or TRAINED)
        self.windows = Windows()
        super().__init__(trainable=self.trained, **kwargs)
        self.train(self.training)

    def _replace_layers(self) -> None:
        """Our attention, and the adapters."""
        super()._replace_layers()
        add_adapters(self, 'blocks', self.windows,
                     **{'embed_dims': self.embed_dims, **self.adapters})

    @property
    def clip_independent(self) -> Optional[bool]:  # type: ignore[override]
        """Not while a temporal adapter remains."""
        return not _mixes_clips(self)

    def init_weights(self) -> None:
        """As ``LoRAViT`` does; a fresh adapter stays the identity."""
        for adapter in adapters_of(self).values():
            adapter.fresh = True
        super().init_weights()
        reset_adapters(self)

    def train(self, mode: bool = True) -> 'AdapterViT':
        """Train what is not frozen.

        Args:
            mode: Whether to train.

        Returns:
            Itself.

        Raises:
            ValueError: See the class.
        """
        super().train(mode)
        set_modes(self, self.trained, self.stochastic_depth, mode)
        if self.side and has_lora(self):
            raise ValueError(
                'backbone.adapters.side=True runs the blocks without a graph, '
                'so lora would not be trained: expected lora=None')
        return self

    def forward(self, x: Tensor, clips_per_window: Clips = 1) -> Tensor:
        """Encode the clips of windows.

        Args:
            x: Clips ``[clips, 3, frames, H, W]``, those of a window next to
                each other.
            clips_per_window: Clips of each window, or of all alike.

        Returns:
            See :class:`~mmblockdrop.backbones.LoRAViT`.

        Raises:
            ValueError: The clips cannot be divided so.
        """
        self.windows.set(len(x), clips_per_window)
        self.windows.steps = x.size(2) // self.patch_embed.projection.stride[0]
        return super().forward(x)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run a block; recomputing it sees the windows of its own batch."""
        if not (self.with_cp and torch.is_grad_enabled()):
            return block(x)
        lengths, steps = self.windows.lengths, self.windows.steps

        def run(x: Tensor) -> Tensor:
            self.windows.lengths, self.windows.steps = lengths, steps
            return block(x)

        return checkpoint(run, x, use_reentrant=False)

    def _encode(self, x: Tensor) -> Tensor:
        """Run the blocks."""
        if not self.side:
            return super()._encode(x)
        seen: List[Any] = []
        with torch.no_grad():
            for block in self.blocks:
                x = block(x)
                if hasattr(block, 'adapter'):
                    seen.append((block.adapter, x))
        if not seen:
            return x
        x = seen[-1][1]
        for adapter, features in seen:
            x = x + adapter.branch(features)
        return x


@MODELS.register_module()
class AdaptedEncoder(BaseModule):
    """Any encoder, frozen, with AdaTAD's adapters behind its blocks.

    The encoder is at ``backbone.encoder``; adapters are children ``adapter``
    of its blocks, so the encoder's own checkpoints load as before.

    Args:
        encoder: Config of an encoder of clips, such as one of mmaction2 or
            ``mmblockdrop.FrameEncoder``.
        stack: Dotted path of its blocks, inside the encoder.
        adapters: See :class:`AdapterViT`; without ``side``, and with
            ``embed_dims``, the width of the features, where the blocks do not
            declare it.
        layout: How blocks lay out what they return: 'tokens' [N, tokens, C],
            time first, 'channels_first' [N, C, t, h, w] or 'channels_last'
            [N, t, h, w, C].
        steps: Steps of time among the tokens of a row; 1 for encoders of
            images.
        special_tokens: Tokens in front of the others, such as a class token,
            that have no place in time.
        stochastic_depth: See :class:`AdapterViT`.
        trainable: See :class:`AdapterViT`.
        init_cfg: As in mmengine.

    Raises:
        ValueError: An argument does not fit the encoder.
    """
    block_spec = BlockSpec(facts=temporal_reach)

    def __init__(self,
                 encoder: dict,
                 stack: str,
                 adapters: Optional[dict] = None,
                 layout: str = 'tokens',
                 steps: int = 1,
                 special_tokens: int = 0,
                 stochastic_depth: bool = True,
                 trainable: Sequence[str] = TRAINED,
                 init_cfg: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.encoder = MODELS.build(encoder)
        self.stochastic_depth = stochastic_depth
        self.trained = tuple(trainable)
        self.windows = Windows(layout, special_tokens, steps)
        adapters = dict(adapters or {})
        if adapters.get('side'):
            raise ValueError('backbone.adapters.side=True: the side network '
                             'is that of mmblockdrop.AdapterViT')
        add_adapters(self.encoder, stack, self.windows, **adapters)
        self.train(self.training)

    @property
    def clip_independent(self) -> Optional[bool]:
        """As the encoder declares, once no temporal adapter remains."""
        if _mixes_clips(self):
            return False
        return declared_independence(self.encoder)

    def init_weights(self) -> None:
        """As the encoder does; a fresh adapter stays the identity."""
        for adapter in adapters_of(self).values():
            adapter.fresh = True
        super().init_weights()
        reset_adapters(self)

    def train(self, mode: bool = True) -> 'AdaptedEncoder':
        """Train what is not frozen.

        Args:
            mode: Whether to train.

        Returns:
            Itself.
        """
        super().train(mode)
        set_modes(self, self.trained, self.stochastic_depth, mode)
        return self

    def forward(self, x: Tensor, clips_per_window: Clips = 1) -> Any:
        """Encode the clips of windows.

        Args:
            x: Clips ``[clips, 3, frames, H, W]``, those of a window next to
                each other.
            clips_per_window: Clips of each window, or of all alike.

        Returns:
            What the encoder returns.

        Raises:
            ValueError: The clips, or the features of a block, cannot be
                divided so.
        """
        self.windows.set(len(x), clips_per_window)
        if takes_windows(type(self.encoder).forward):
            return self.encoder(x, clips_per_window=clips_per_window)
        return self.encoder(x)
