"""Backbones of mmaction2 and mmpretrain in the smallest sizes that run."""
from typing import Any, Dict, NamedTuple, Sequence, Tuple

from mmblockdrop.registry import MODELS

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn


class Entry(NamedTuple):
    """One backbone.

    Attributes:
        cfg: Its config.
        shape: Shape of its input.
        stack: Paths of its blocks.
        fixed: Blocks that have to stay.
    """
    cfg: Dict[str, Any]
    shape: Tuple[int, ...]
    stack: Any
    fixed: Sequence[int] = ()


STAGES = ['layer1', 'layer2', 'layer3', 'layer4']
VIT = dict(
    img_size=32, patch_size=16, embed_dims=8, depth=3, num_heads=2,
    num_frames=4)

ZOO = {
    'mmaction.VisionTransformer':
    Entry(dict(VIT), (1, 3, 4, 32, 32), 'blocks'),
    'mmblockdrop.LoRAViT':
    Entry(dict(VIT), (1, 3, 4, 32, 32), 'blocks'),
    'mmaction.TimeSformer':
    Entry(
        dict(num_frames=2, img_size=32, patch_size=16, embed_dims=8,
             num_heads=2, num_transformer_layers=3), (1, 3, 2, 32, 32),
        'transformer_layers.layers'),
    'mmaction.MViT':
    Entry(
        dict(
            arch=dict(embed_dims=8, num_layers=4, num_heads=1,
                      downscale_indices=[2]),
            spatial_size=32, temporal_size=4), (1, 3, 4, 32, 32), 'blocks',
        [2]),
    'mmaction.SwinTransformer3D':
    Entry(
        dict(
            arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2]),
            window_size=(2, 2, 2), pretrained2d=False, out_indices=(1, )),
        (1, 3, 4, 32, 32), ['layers.0.blocks', 'layers.1.blocks']),
    'mmaction.UniFormer':
    Entry(
        dict(depth=[1, 2, 2, 1], embed_dim=[8, 8, 8, 8], head_dim=4,
             img_size=32, pretrained2d=False), (1, 3, 4, 32, 32),
        ['blocks1', 'blocks2', 'blocks3', 'blocks4']),
    'mmaction.UniFormerV2':
    Entry(
        dict(input_resolution=32, width=8, layers=4, heads=2, t_size=2,
             n_layers=2, return_list=[2, 3], n_dim=8, n_head=2,
             mlp_dropout=[0., 0.], clip_pretrained=False), (1, 3, 2, 32, 32),
        ['transformer.resblocks', 'transformer.dec']),
    'mmaction.ResNet3d':
    Entry(
        dict(depth=18, base_channels=4, pretrained=None, pretrained2d=False),
        (1, 3, 4, 32, 32), STAGES, [2, 4, 6]),
    'mmaction.ResNet3dSlowOnly':
    Entry(
        dict(depth=18, base_channels=4, pretrained=None, lateral=False),
        (1, 3, 4, 32, 32), STAGES, [2, 4, 6]),
    'mmaction.ResNet2Plus1d':
    Entry(
        dict(depth=18, base_channels=4, pretrained=None, pretrained2d=False,
             conv_cfg=dict(type='Conv2plus1d'), norm_cfg=dict(type='BN3d'),
             conv1_kernel=(3, 7, 7), conv1_stride_t=1, pool1_stride_t=1,
             inflate=(1, 1, 1, 1), spatial_strides=(1, 2, 2, 2),
             temporal_strides=(1, 2, 2, 2)), (1, 3, 8, 32, 32), STAGES,
        [2, 4, 6]),
    'mmpretrain.VisionTransformer':
    Entry(
        dict(
            arch=dict(embed_dims=8, num_layers=3, num_heads=2,
                      feedforward_channels=16),
            img_size=32, patch_size=16, out_type='featmap'),
        (1, 3, 2, 32, 32), 'encoder.layers'),
    'mmpretrain.ConvNeXt':
    Entry(
        dict(arch=dict(depths=[1, 2, 2, 1], channels=[4, 4, 8, 8])),
        (1, 3, 2, 64, 64), [f'encoder.stages.{i}' for i in range(4)]),
    'mmpretrain.ResNet':
    Entry(
        dict(depth=18, stem_channels=4, base_channels=4), (1, 3, 2, 64, 64),
        [f'encoder.{stage}' for stage in STAGES], [2, 4, 6]),
}


def build(name: str) -> Tuple[nn.Module, Tensor]:
    """Build a backbone and an input for it.

    Args:
        name: Key of :data:`ZOO`.

    Returns:
        The model in evaluation mode, every weight random, and clips.
    """
    entry = ZOO[name]
    cfg = dict(entry.cfg, type=name)
    if name.startswith('mmpretrain.'):
        cfg = dict(type='mmblockdrop.FrameEncoder', encoder=cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg)
    with torch.no_grad():  # no branch may start at zero
        for parameter in model.parameters():
            parameter.uniform_(-0.3, 0.3)
    model.eval()  # mmaction2's ResNets return nothing here
    return model, torch.randn(entry.shape)
