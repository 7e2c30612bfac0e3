"""Memory of a training step: activations, gradients and optimizer state.

    python projects/adatad/step_memory.py [--encoders S B L] [--frames 768]

For an encoder of VideoMAE on one window at 160 pixels, by what is trained of
it. Nothing is computed: the model runs on the meta device, and what autograd
keeps for the backward pass is counted, for attention what memory-efficient
kernels keep. Float32, without the localizer, the
weights and what a kernel needs for itself; AdamW has two values for each one
that is trained, besides its gradient.
"""
import argparse
from typing import Any, Dict, Optional, Sequence
from unittest.mock import patch

import mmblockdrop  # applies its patches
from mmblockdrop.backbones.base import VideoEncoder
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.meta import empty_weights

import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from torch import Tensor, nn

#: Width, depth and heads.
ENCODERS = {'S': (384, 12, 6), 'B': (768, 12, 12), 'L': (1024, 24, 16)}
#: What is trained, and the arguments of the encoder.
METHODS: Dict[str, Dict[str, Any]] = {
    'all weights': dict(type='mmblockdrop.LoRAViT'),
    'LoRA, norms, patches': dict(
        type='mmblockdrop.LoRAViT', lora=0.25,
        trainable=['lora_', 'norm', 'patch_embed']),
    'adapters': dict(type='mmblockdrop.AdapterViT'),
    'plain adapters': dict(
        type='mmblockdrop.AdapterViT', adapters=dict(temporal=False)),
    'side network': dict(
        type='mmblockdrop.AdapterViT', adapters=dict(side=True)),
}


class _Attention(torch.autograd.Function):
    """Keeps what memory-efficient kernels keep, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = torch.empty_like(v)
        ctx.save_for_backward(q, k, v, output, q.new_empty(q.shape[:-1]))
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, grad, grad


def _attend(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    return _Attention.apply(q, k, v)


def bytes_of_step(model: nn.Module,
                  frames: Tensor,
                  clip_frames: int = 16) -> Dict[str, int]:
    """Count what a training step of an encoder keeps.

    Args:
        model: The encoder, in training mode.
        frames: Windows [B, 3, F, H, W].
        clip_frames: Frames of a clip.

    Returns:
        Bytes of ``activations`` and ``trained`` (gradients and two values of
        AdamW); and the number of ``trained`` values as ``params``.
    """
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    own |= {b.untyped_storage()._cdata for b in model.buffers()}
    kept: Dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            kept[key] = tensor
        return tensor

    encoder = VideoEncoder(frames.size(2), clip_frames)
    with torch.autograd.graph.saved_tensors_hooks(
            keep, lambda x: x), patch.object(
                F, 'scaled_dot_product_attention', _attend):
        output = encoder(model, frames)
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = sum(t.untyped_storage().nbytes() for t in kept.values())
    assert output.requires_grad
    return dict(activations=size, trained=12 * params, params=params)


def build(encoder: str, method: str, depth: Optional[int] = None,
          **options: Any) -> nn.Module:
    """Build an encoder without weights.

    Args:
        encoder: Key of ``ENCODERS``.
        method: Key of ``METHODS``.
        depth: Blocks; all by default.
        **options: Other arguments.

    Returns:
        The encoder, in training mode.
    """
    width, blocks, heads = ENCODERS[encoder]
    cfg = dict(
        METHODS[method], embed_dims=width, depth=depth or blocks,
        num_heads=heads, norm_cfg=dict(type='LN', eps=1e-6), **options)
    if 'lora' in cfg:
        cfg['lora'] = dict(rank=int(width * cfg['lora']))
    with empty_weights():
        return MODELS.build(cfg).to('meta').train()


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--encoders', nargs='+', choices=ENCODERS, default=['S', 'B', 'L'])
    parser.add_argument('--frames', type=int, default=768)
    args = parser.parse_args(argv)
    init_default_scope('mmaction')
    frames = torch.empty(1, 3, args.frames, 160, 160, device='meta')
    print('| encoder | trained | blocks | trained (M) | GiB | GiB with '
          'checkpointing | share of all weights |')
    print('| --- | --- | --: | --: | --: | --: | --: |')
    for encoder in args.encoders:
        depth = ENCODERS[encoder][1]
        whole = None
        for method in METHODS:
            for blocks in (depth, depth * 3 // 4, depth // 2):
                found = [
                    bytes_of_step(
                        build(encoder, method, blocks, with_cp=cp), frames)
                    for cp in (False, True)
                ]
                sizes = [f['activations'] + f['trained'] for f in found]
                whole = whole or sizes[0]
                print(f'| VideoMAE-{encoder} | {method} | {blocks} | '
                      f'{found[0]["params"] / 1e6:.2f} | '
                      f'{sizes[0] / 2**30:.2f} | {sizes[1] / 2**30:.2f} | '
                      f'{sizes[0] / whole:.2f} |', flush=True)


if __name__ == '__main__':
    main()
