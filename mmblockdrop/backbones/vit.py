"""The video transformer of VideoMAE, with LoRA and with blocks missing."""
from typing import Dict, List, Optional, Sequence, Tuple, Union

from mmblockdrop.compression import BlockStack
from mmblockdrop.compression.lora import add_lora, reset_lora
from mmblockdrop.registry import MODELS

import torch
import torch.nn.functional as F
from mmaction.models.backbones.vit_mae import Attention, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .pretrained import load_pretrained
from .stem import ConvStem


class ViTAttention(Attention):
    """Multi-head self-attention that calls ``qkv`` as a module.

    mmaction2's attention reads ``self.qkv.weight`` and so passes by
    whatever wraps ``qkv``. Names of parameters are the same. Where nothing
    wraps or listens to ``qkv``, its bias is added inside the matrix product.

    Args:
        *args: Arguments of mmaction2's attention.
        window: Consecutive tokens that see each other. Defaults to None, all
            tokens of a clip.
        shift: Tokens by which the first window is shorter; the last one has
            the rest. Defaults to 0.
        **kwargs: Arguments of mmaction2's attention.
    """

    def __init__(self,
                 *args,
                 window: Optional[int] = None,
                 shift: int = 0,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.window = window
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each clip, or within each of its windows.

        Args:
            x: Tokens ``[clips, tokens, C]``.

        Returns:
            Tokens of the same shape.
        """
        qkv = self._project(x)
        parts = [
            self._attend(part.reshape(-1, length, qkv.shape[-1]))
            for part, length in self._windows(qkv)
        ]
        parts = [part.reshape(len(x), -1, x.shape[-1]) for part in parts]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return self.proj_drop(self.proj(x))

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

    def _attend(self, qkv: Tensor) -> Tensor:
        """Tokens ``[windows, tokens, C]`` that have seen each other."""
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
        drop_blocks: Original numbers of the blocks that are absent. They own
            no keys; the others keep their names.
        lora: Arguments of :func:`~mmblockdrop.compression.lora.add_lora`, e.g.
            ``dict(rank=96, targets=['qkv', 'proj'])``. Defaults to None, no
            LoRA.
        trainable: Parts of the names of the parameters that are trained; all
            others are frozen. Defaults to None, all that LoRA does not freeze.
        stem: Arguments of :class:`~mmblockdrop.backbones.stem.ConvStem`, which
            then stands for the patch embedding; for training from scratch.
            Defaults to None, the projection of VideoMAE.
        shifted_windows: Take clips longer than ``num_frames``: a block attends
            within windows of ``num_frames`` frames, and the windows of every
            second block, or of those marked True in a list with one entry per
            block, lie half a window later (Liu et al., Swin Transformer, ICCV
            2021, here along time). So what a step sees grows with every block.
            The table of positions is repeated. Defaults to False, all of a
            clip.
        with_cp: Recompute blocks in the backward pass instead of keeping their
            activations. Defaults to False.
        return_feat_map: Return ``[clips, C, t, h, w]``. Defaults to True,
            which a localizer needs.
        pretrained: Checkpoint that ``init_weights`` loads, all of it or not at
            all; see :func:`~mmblockdrop.backbones.pretrained.load_pretrained`.
        init_cfg: As in mmaction2.
        **kwargs: Arguments of ``mmaction.VisionTransformer``.

    Raises:
        ValueError: A number in ``drop_blocks`` does not exist or stands
            there twice, ``shifted_windows`` has another length than the
            stack, no layer is called like a LoRA target, or no
            parameter like any entry of ``trainable``.
    """
    #: Tokens attend within their clip.
    clip_independent: Optional[bool] = True

    def __init__(self,
                 *,
                 drop_blocks: Sequence[int] = (),
                 lora: Optional[dict] = None,
                 trainable: Optional[Sequence[str]] = None,
                 stem: Optional[dict] = None,
                 shifted_windows: Union[bool, Sequence[bool]] = False,
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
        if stem is not None:
            self.patch_embed = ConvStem(
                kwargs.get('in_channels', 3), self.embed_dims,
                self.patch_size, kwargs.get('tubelet_size', 2), **stem)
        if return_feat_map and self.fc_norm is not None:
            # Unused then; DistributedDataParallel would wait for gradients.
            self.fc_norm.requires_grad_(False)
        self.window = self.pos_embed.shape[1] if shifted_windows else None
        steps = kwargs.get('num_frames', 16) // kwargs.get('tubelet_size', 2)
        half = self.pos_embed.shape[1] // steps * (steps // 2)
        shifts = self._shifted(shifted_windows)
        # One entry per block, of which an export leaves out the dropped.
        self.shifted_windows = shifts if shifted_windows else False
        for block, shifted in zip(self.blocks, shifts):
            block.attn = self._called_attention(block.attn,
                                                half if shifted else 0)
        stack = BlockStack(self, 'blocks')
        for index in drop_blocks:
            stack.remove(index)
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

    def _called_attention(self, attn: Attention, shift: int) -> ViTAttention:
        return ViTAttention(
            attn.embed_dims,
            num_heads=attn.num_heads,
            qkv_bias=hasattr(attn, 'q_bias'),
            qk_scale=attn.scale,
            attn_drop_rate=attn.attn_drop.p,
            drop_rate=attn.proj_drop.p,
            window=self.window,
            shift=shift)

    def init_weights(self) -> None:
        """Initialise as mmaction2 does; fresh LoRA stays the identity."""
        super().init_weights()
        if self.pretrained:
            load_pretrained(self, self.pretrained)
        reset_lora(self)

    def positions(self, h: int, w: int) -> Tensor:
        """Position codes for a grid of ``h`` by ``w`` tokens.

        Args:
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

    def _repeated(self, positions: Tensor, tokens: int,
                  grid: Tuple[int, int]) -> Tensor:
        """Position codes of a clip that is longer than the table."""
        if grid != self.grid_size:
            size = self.grid_size[0] * self.patch_size
            found = tuple(side * self.patch_size for side in grid)
            raise ValueError(
                f'backbone.shifted_windows takes pictures of backbone.img_size'
                f'={size}, found {found}: its windows are counted in tokens')
        repeats = -(-tokens // positions.shape[1])
        return positions.repeat(1, repeats, 1)[:, :tokens]

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
        positions = self.positions(h, w)
        if self.window is not None:
            positions = self._repeated(positions, x.shape[1], (h, w))
        x = self.pos_drop(x + positions)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        x = self.norm(x)
        if self.return_feat_map:
            x = x.reshape(b, -1, h, w, self.embed_dims)
            return x.permute(0, 4, 1, 2, 3)
        if self.fc_norm is not None:
            return self.fc_norm(x.mean(1))
        return x[:, 0]


def _is_bare(layer: nn.Module) -> bool:
    """Whether a linear layer is nothing more, and nobody listens to it."""
    return type(layer) is nn.Linear and not (
        layer._forward_hooks or layer._forward_pre_hooks
        or layer._backward_hooks or layer._backward_pre_hooks
        or 'forward' in layer.__dict__)
