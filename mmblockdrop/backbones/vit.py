"""The video transformer of VideoMAE, with LoRA and with blocks missing."""
from dataclasses import replace
from typing import Any, Dict, List, Optional, Sequence, Union

from mmblockdrop.compression import remove_parts
from mmblockdrop.compression.lora import add_lora, reset_lora
from mmblockdrop.compression.spec import VIT
from mmblockdrop.registry import MODELS

import torch
import torch.nn.functional as F
from mmaction.models.backbones.vit_mae import Attention, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .pretrained import load_pretrained


class ViTAttention(Attention):
    """Multi-head self-attention that calls ``qkv`` as a module.

    mmaction2's attention reads ``self.qkv.weight`` and so ignores whatever
    wraps ``qkv``. Names of parameters are the same. If ``qkv`` is a plain
    layer without hooks, its bias is added inside the matrix product.
    """

    @classmethod
    def like(cls, attn: Attention) -> 'ViTAttention':
        """Attention with the settings of mmaction2's, with new weights.

        Args:
            attn: Attention of mmaction2.
        """
        return cls(
            attn.embed_dims,
            num_heads=attn.num_heads,
            qkv_bias=hasattr(attn, 'q_bias'),
            qk_scale=attn.scale,
            attn_drop_rate=attn.attn_drop.p,
            drop_rate=attn.proj_drop.p)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each clip.

        Args:
            x: Tokens ``[clips, tokens, C]``.

        Returns:
            Tokens of the same shape.
        """
        return self.proj_drop(self.proj(self._attend(self._project(x))))

    def _attend(self, qkv: Tensor) -> Tensor:
        """From ``[clips, tokens, 3C]`` to tokens ``[clips, tokens, C]``."""
        b, n, _ = qkv.shape
        qkv = qkv.reshape(b, n, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=self.attn_drop.p if self.training else 0.,
            scale=self.scale)
        return x.transpose(1, 2).reshape(b, n, -1)

    def _project(self, x: Tensor) -> Tensor:
        """Queries, keys and values ``[clips, tokens, 3C]``."""
        if not hasattr(self, 'q_bias'):
            return self.qkv(x)
        zeros = torch.zeros_like(self.v_bias)
        bias = torch.cat((self.q_bias, zeros, self.v_bias))
        if _is_bare(self.qkv):
            return F.linear(x, self.qkv.weight, bias)
        return self.qkv(x) + bias


@MODELS.register_module()
class LoRAViT(VisionTransformer):
    """mmaction2's VideoMAE transformer for the student and the teacher.

    Key names are those of ``mmaction.VisionTransformer``, so its published
    checkpoints load strictly. One class with arguments covers the full
    model, the model with LoRA and the model with blocks missing.

    Args:
        drop_blocks: What is absent: original numbers of blocks, and paths of
            halves such as ``'blocks.3.attn'``. It owns no keys; the rest keeps
            its names.
        lora: Arguments of :func:`~mmblockdrop.compression.lora.add_lora`, e.g.
            ``dict(rank=96, targets=['qkv', 'proj'])``. Defaults to None, no
            LoRA.
        trainable: Parts of the names of the parameters that are trained; all
            others are frozen. Defaults to None, all that LoRA does not freeze.
        with_cp: Recompute blocks in the backward pass instead of keeping their
            activations. Defaults to False.
        return_feat_map: Return ``[clips, C, t, h, w]``. Defaults to True,
            which a localizer needs.
        pretrained: Checkpoint that ``init_weights`` loads, all of it or not at
            all; see :func:`~mmblockdrop.backbones.pretrained.load_pretrained`.
        init_cfg: As in mmaction2.
        **kwargs: Arguments of ``mmaction.VisionTransformer``.

    Raises:
        ValueError: A number in ``drop_blocks`` does not exist or comes
            twice, no layer is called like a LoRA target, or no
            parameter like any entry of ``trainable``.
    """
    #: Tokens attend within their clip.
    clip_independent: Optional[bool] = True
    block_spec = replace(VIT, absent='drop_blocks')

    def __new__(cls, *args: Any, **kwargs: Any) -> 'LoRAViT':
        """Configs from before ``SmallViT`` gave its arguments here."""
        if cls is LoRAViT and {'stem', 'shifted_windows'} & set(kwargs):
            from .small_vit import SmallViT
            cls = SmallViT
        return super().__new__(cls)

    def __init__(self,
                 *,
                 drop_blocks: Sequence[Union[int, str]] = (),
                 lora: Optional[dict] = None,
                 trainable: Optional[Sequence[str]] = None,
                 with_cp: bool = False,
                 return_feat_map: bool = True,
                 pretrained: Optional[str] = None,
                 init_cfg: Optional[Union[Dict, List[Dict]]] = None,
                 **kwargs) -> None:
        if init_cfg is not None:
            kwargs['init_cfg'] = init_cfg
        super().__init__(return_feat_map=return_feat_map, **kwargs)
        self.pretrained = pretrained
        self.with_cp = with_cp
        if return_feat_map and self.fc_norm is not None:
            # Unused then; DistributedDataParallel would wait for gradients.
            self.fc_norm.requires_grad_(False)
        self._replace_layers()
        remove_parts(self, 'blocks', drop_blocks)
        if lora is not None:
            add_lora(self, **lora)
        if trainable is not None:
            self._freeze_except(trainable)

    def _freeze_except(self, trainable: Sequence[str]) -> None:
        names = [name for name, _ in self.named_parameters()]
        if not any(part in name for part in trainable for name in names):
            raise ValueError(
                f'backbone.trainable={list(trainable)} names no parameter; '
                'names have parts such as '
                f'{sorted({part for n in names for part in n.split(".")})}')
        for name, parameter in self.named_parameters():
            if not any(part in name for part in trainable):
                parameter.requires_grad_(False)

    def _replace_layers(self) -> None:
        """Put our attention in place of mmaction2's."""
        for block in self.blocks:
            block.attn = ViTAttention.like(block.attn)

    def init_weights(self) -> None:
        """Initialise as mmaction2 does; fresh LoRA stays the identity."""
        super().init_weights()
        if self.pretrained:
            load_pretrained(self, self.pretrained)
        reset_lora(self)

    def positions(self, t: int, h: int, w: int) -> Tensor:
        """Position codes of a grid of tokens.

        Args:
            t: Tokens along time, as many as the stored table has.
            h: Tokens down.
            w: Tokens across.

        Returns:
            ``[1, t * h * w, C]``; bicubic resize of the stored table, slice of
            time by slice of time.
        """
        if (h, w) == self.grid_size:
            return self.pos_embed
        table = self.pos_embed.reshape(-1, *self.grid_size, self.embed_dims)
        table = F.interpolate(
            table.permute(0, 3, 1, 2),
            size=(h, w),
            mode='bicubic',
            align_corners=False)
        return table.permute(0, 2, 3, 1).reshape(1, -1, self.embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Encode clips.

        Args:
            x: Clips ``[clips, 3, frames, H, W]``.

        Returns:
            ``[clips, C, t, h, w]`` if ``return_feat_map``, with ``t`` the
            number of tubelets; otherwise ``[clips, C]``.
        """
        b = x.shape[0]
        h, w = (size // self.patch_size for size in x.shape[-2:])
        x = self.patch_embed(x)[0]
        times = x.shape[1] // (h * w)
        x = self.pos_drop(x + self.positions(times, h, w))
        x = self.norm(self._encode(x))
        if self.return_feat_map:
            x = x.reshape(b, -1, h, w, self.embed_dims)
            return x.permute(0, 4, 1, 2, 3)
        if self.fc_norm is not None:
            return self.fc_norm(x.mean(1))
        return x[:, 0]

    def _encode(self, x: Tensor) -> Tensor:
        """Run the blocks."""
        for block in self.blocks:
            x = self._run(block, x)
        return x

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run a block."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)


def _is_bare(layer: nn.Module) -> bool:
    """Whether a layer is a plain linear layer without hooks."""
    return type(layer) is nn.Linear and not (
        layer._forward_hooks or layer._forward_pre_hooks
        or layer._backward_hooks or layer._backward_pre_hooks
        or 'forward' in layer.__dict__)
