"""The shorter model that a config builds is the compressed one."""
import copy
from typing import Any, Dict

from mmblockdrop.compression import BlockStack, remove_parts
from mmblockdrop.export import ExportError, renumber
from mmblockdrop.export.files import with_mmaction_types
from mmblockdrop.export.runtime import difference
from mmblockdrop.registry import MODELS

import mmaction.models
import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

VIT = dict(
    img_size=16, patch_size=8, embed_dims=8, depth=4, num_heads=4,
    num_frames=4)
SWIN = dict(
    type='SwinTransformer3D',
    arch=dict(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 1, 1]),
    window_size=(2, 2, 2),
    pretrained2d=False)
RESNET = dict(pretrained=None, pretrained2d=False, base_channels=2)
PROJECTION = dict(
    type='mmblockdrop.ConvTransformerProjection', in_channels=8,
    out_channels=8, num_heads=2)
HEAD = dict(
    type='mmblockdrop.ActionFormerHead', num_classes=2, in_channels=8,
    num_convs=1, strides=[1, 2])
CLIP, LARGER = (1, 3, 4, 16, 16), (1, 3, 4, 64, 64)


def compressed(cfg: Dict[str, Any], path: Any, drop: list,
               shape: tuple) -> nn.Module:
    """A random model without some of its blocks."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg))
    model.eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    stack = BlockStack(model, path)
    stack.probe(lambda: model(torch.zeros(shape)))
    for index in drop:
        stack.remove(index)
    return model


@pytest.mark.parametrize('cfg, path, drop, shape, changed', [
    (dict(type='mmblockdrop.LoRAViT', drop_blocks=[0], **VIT), 'blocks', [2],
     CLIP, dict(depth=2)),
    (dict(type='TimeSformer', num_frames=4, img_size=16, patch_size=8,
          embed_dims=8, num_heads=2, num_transformer_layers=3),
     'transformer_layers.layers', [1], CLIP, dict(num_transformer_layers=2)),
    (dict(type='MViT', arch=dict(embed_dims=8, num_layers=5, num_heads=1,
                                 downscale_indices=[1, 3]),
          spatial_size=32, temporal_size=4), 'blocks', [2], (1, 3, 4, 32, 32),
     dict(arch=dict(embed_dims=8, num_layers=4, num_heads=1,
                    downscale_indices=[1, 2]))),
    (SWIN, 'layers.2.blocks', [1, 2], LARGER,
     dict(arch=dict(embed_dims=8, depths=[2, 2, 2, 2],
                    num_heads=[1, 1, 1, 1]))),
    (dict(type='UniFormer', depth=[1, 3, 2, 1], img_size=32,
          embed_dim=[8, 8, 8, 8], head_dim=4, pretrained2d=False),
     ['blocks2', 'blocks3'], [1, 4], (1, 3, 4, 32, 32),
     dict(depth=[1, 2, 1, 1])),
    (dict(type='ResNet3d', depth=18, **RESNET), ['layer2', 'layer3'], [1, 3],
     CLIP, dict(stage_blocks=(2, 1, 1, 2))),
    (dict(type='ResNet3dSlowOnly', depth=50,
          inflate=(0, 0, (1, 0, 1, 0, 1, 1), 1), **RESNET), 'layer3', [1, 4],
     CLIP, dict(stage_blocks=(3, 4, 4, 3), inflate=(0, 0, (1, 1, 0, 1), 1))),
    (dict(type='mmpretrain.ConvNeXt',
          arch=dict(depths=[1, 2, 3, 1], channels=[8, 8, 16, 16])),
     'stages.2', [1], (1, 3, 64, 64),
     dict(arch=dict(depths=[1, 2, 2, 1], channels=[8, 8, 16, 16]))),
    (dict(type='mmblockdrop.ActionFormer', window_size=8,
          projection=dict(PROJECTION, arch=(2, 2, 1)), head=HEAD),
     ['projection.stem', 'projection.embed'], [0, 3], (1, 8, 8),
     dict(projection=dict(PROJECTION, arch=(1, 1, 1)))),
])
def test_shorter_model_is_the_compressed_one(cfg, path, drop, shape, changed):
    model = compressed(cfg, path, drop, shape)
    inputs = torch.randn(shape)
    plain = with_mmaction_types(cfg)
    short, found, _ = renumber(model, plain, inputs)
    assert {k: found[k] for k in changed} == changed
    assert {k: v for k, v in found.items()
            if k not in changed} == {k: v for k, v in plain.items()
                                     if k not in changed}
    assert difference(model, short, inputs) < 1e-5
    fresh = MODELS.build(copy.deepcopy(found))
    fresh.eval()
    fresh.load_state_dict(short.state_dict(), strict=True)
    assert difference(model, fresh, torch.randn(shape)) < 1e-5
    assert plain == with_mmaction_types(cfg)  # not changed


def test_presets_of_a_class_are_written_out():
    cfg = dict(
        type='mmpretrain.VisionTransformer', arch='deit-t', img_size=32,
        patch_size=16)
    model = compressed(cfg, 'layers', [1, 4], (1, 3, 32, 32))
    found = renumber(model, cfg, torch.randn(1, 3, 32, 32))[1]
    assert found['arch']['num_layers'] == 10
    assert found['arch']['embed_dims'] == 192


def test_block_that_depends_on_its_number_is_rejected():
    """Every other block of Swin shifts its windows."""
    model = compressed(SWIN, 'layers.2.blocks', [1], LARGER)
    with pytest.raises(ExportError) as caught:
        renumber(model, SWIN, torch.randn(LARGER))
    assert 'layers.2.blocks without the blocks [1]' in str(caught.value)
    assert 'shift_size' in str(caught.value)
    assert 'train_cfg.protect' in str(caught.value)


def test_length_that_is_no_argument_is_rejected():
    cfg = dict(
        type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4)
    model = compressed(cfg, 'layer3', [1], (1, 3, 32, 32))
    with pytest.raises(ExportError, match='gives 1 instead of 2 blocks'):
        renumber(model, cfg, torch.randn(1, 3, 32, 32))


def test_single_module_is_rejected():

    @MODELS.register_module(force=True)
    class TwoNamedBlocks(nn.Module):

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.second(self.first(x))

    cfg = dict(type='mmblockdrop.TwoNamedBlocks')
    model = compressed(cfg, ['first', 'second'], [0], (1, 2))
    with pytest.raises(ExportError, match='first'):
        renumber(model, cfg, torch.randn(1, 2))


@pytest.mark.parametrize('cfg, path, drop, changed', [
    (dict(type='mmblockdrop.LoRAViT', **VIT), 'blocks',
     [1, 'blocks.0.mlp', 'blocks.3.attn'],
     dict(depth=3, drop_blocks=['blocks.0.mlp', 'blocks.2.attn'])),
    (dict(type='mmblockdrop.SmallViT', shifted_windows=True, **VIT), 'blocks',
     [1, 'blocks.3.attn'],
     dict(depth=3, drop_blocks=['blocks.2.attn'],
          shifted_windows=[False, False, True])),
])
def test_halves_are_an_argument_of_ours(cfg, path, drop, changed):
    model = compressed(cfg, path, [], CLIP)
    remove_parts(model, path, drop)
    inputs = torch.randn(CLIP)
    short, found, stacks = renumber(
        model, with_mmaction_types(cfg, halves=True), inputs)
    assert {k: found[k] for k in changed} == changed
    assert found['type'] == cfg['type']
    assert [s.dropped for s in stacks] == [[1]]
    fresh = MODELS.build(copy.deepcopy(found))
    fresh.eval()
    fresh.load_state_dict(short.state_dict(), strict=True)
    assert difference(model, fresh, torch.randn(CLIP)) < 1e-5


@pytest.mark.parametrize('cfg, path, half', [
    (dict(type='mmaction.VisionTransformer', **VIT), 'blocks',
     'blocks.1.attn'),
    (dict(type='TimeSformer', num_frames=4, img_size=16, patch_size=8,
          embed_dims=8, num_heads=2, num_transformer_layers=3),
     'transformer_layers.layers', 'transformer_layers.layers.1.attentions.0'),
])
def test_classes_without_an_argument_for_halves_are_named(cfg, path, half):
    model = compressed(cfg, path, [2], CLIP)
    remove_parts(model, path, [half])
    with pytest.raises(ExportError) as caught:
        renumber(model, cfg, torch.randn(CLIP))
    kind = cfg['type'].rpartition('.')[2]
    assert kind in str(caught.value) and half in str(caught.value)
    assert 'drop_blocks' in str(caught.value) and '--onnx' in str(caught.value)


def test_a_class_that_declares_nothing_is_tried():

    @MODELS.register_module(force=True)
    class Undeclared(nn.Module):
        presets = dict(tiny=dict(layers=3, scales=[1., 2., 3.]))

        def __init__(self, width=4, arch='tiny', heads=3):
            super().__init__()
            arch = self.presets[arch] if isinstance(arch, str) else arch
            self.scales = arch['scales']
            self.steps = nn.ModuleList(
                nn.Linear(width, width) for _ in range(arch['layers']))
            self.head = nn.Linear(width, heads)

        def forward(self, x):
            for step, scale in zip(self.steps, self.scales):
                x = step(x) * scale if isinstance(step, nn.Linear) else x
            return self.head(x)

    cfg = dict(type='mmblockdrop.Undeclared')
    model = compressed(cfg, 'steps', [1], (2, 4))
    found = renumber(model, cfg, torch.randn(2, 4))[1]
    assert found == dict(cfg, arch=dict(layers=2, scales=[1., 3.]))
