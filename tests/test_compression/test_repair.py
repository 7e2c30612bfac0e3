"""Removed blocks are repaired in closed form."""
import copy

from mmblockdrop.compression import BlockStack, HalfBlocks, LinearRepair
from mmblockdrop.registry import MODELS, REPAIRS

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import nn

VIT = dict(
    img_size=32, patch_size=8, embed_dims=48, depth=5, num_heads=2,
    num_frames=4)
STACKS = dict(
    vit=(dict(VIT, type='mmaction.VisionTransformer', return_feat_map=True),
         'blocks', (4, 3, 4, 32, 32)),
    lora_vit=(dict(VIT, type='mmblockdrop.LoRAViT', lora=dict(rank=2)),
              'blocks', (4, 3, 4, 32, 32)),
    vit_with_layer_scale=(dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(
            embed_dims=48,
            num_layers=5,
            num_heads=2,
            feedforward_channels=96),
        img_size=32,
        patch_size=8,
        out_type='featmap',
        layer_scale_init_value=0.5), 'layers', (8, 3, 32, 32)),
    convnext=(dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[2, 4], channels=[16, 32]),
        out_indices=1,
        layer_scale_init_value=0.5), 'stages.1', (4, 3, 64, 64)),
    timesformer=(dict(
        type='mmaction.TimeSformer',
        num_frames=4,
        img_size=32,
        patch_size=8,
        embed_dims=48,
        num_heads=2,
        num_transformer_layers=5,
        attention_type='divided_space_time'), 'transformer_layers.layers',
                 (4, 3, 4, 32, 32)))


def build(cfg):
    """A model whose blocks do something, and a copy of it."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    teacher = MODELS.build(cfg)
    teacher.eval()  # mmpretrain returns nothing here
    for parameter in teacher.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.08)
    return teacher, copy.deepcopy(teacher)


def features(model, inputs):
    with torch.no_grad():
        found = model(inputs)
    return found[-1] if isinstance(found, (tuple, list)) else found


def run(model, batch):
    return model(batch)


@pytest.mark.parametrize('name', STACKS)
def test_repair_brings_features_back(name):
    cfg, path, shape = STACKS[name]
    teacher, student = build(cfg)
    batches = [torch.randn(*shape) for _ in range(8)]
    unseen = torch.randn(*shape)
    structure = BlockStack(student, path)
    structure.remove(2)
    names = set(teacher.state_dict())
    wanted, cut = features(teacher, unseen), features(student, unseen)
    entries = REPAIRS.build(dict(type='mmblockdrop.LinearRepair'))(
        student, teacher, structure, [2], batches, run)
    repaired = features(student, unseen)
    assert (repaired - wanted).square().mean() < 0.6 * (
        cut - wanted).square().mean()
    assert entries[0]['kept'] and entries[0]['tokens'] > 0
    for entry in entries:
        assert entry['error_after'] <= entry['error_before']
    if name != 'lora_vit':  # whose LoRA is merged first
        assert set(student.state_dict()) <= names


@pytest.mark.parametrize('half', ['attn', 'mlp'])
def test_a_half_is_repaired_by_its_block(half):
    cfg, path, shape = STACKS['vit']
    teacher, student = build(cfg)
    structure = HalfBlocks(student, path)
    structure.remove(f'blocks.2.{half}')
    batches = [torch.randn(*shape) for _ in range(8)]
    entries = LinearRepair()(student, teacher, structure,
                             [f'blocks.2.{half}'], batches, run)
    assert entries[0]['layer'].startswith('blocks.2.')
    assert entries[0]['error_after'] < 0.7 * entries[0]['error_before']


class Residual(nn.Module):
    """x plus a hidden layer; or x plus what ``extra`` gives."""

    def __init__(self, width, extra=None):
        super().__init__()
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, width)
        self.extra = extra

    def forward(self, x):
        if self.extra is not None:
            return x + self.extra
        return x + self.out(self.hidden(x).relu())


def stack(*extras, width=4):
    torch.manual_seed(0)
    return nn.Sequential(*(Residual(width, e) for e in extras)).eval()


def as_blocks(model):
    return BlockStack(nn.ModuleDict(dict(blocks=model)), 'blocks')


def repaired(teacher, student, batches, removed=(1, ), **kwargs):
    structure = as_blocks(student)
    for part in removed:
        structure.remove(part)
    entries = LinearRepair(**kwargs)(structure.model,
                                     as_blocks(teacher).model, structure,
                                     removed, batches,
                                     lambda m, b: m['blocks'](b['inputs']))
    return entries


def test_a_constant_is_repaired_exactly():
    teacher = stack(None, torch.tensor([1., -2., 3., 0.5]), None)
    student = copy.deepcopy(teacher)
    batches = [dict(inputs=torch.randn(50, 4)) for _ in range(4)]
    entries = repaired(teacher, student, batches, ridges=[1e-9])
    inputs = torch.randn(7, 4)
    assert torch.allclose(student(inputs), teacher(inputs), atol=1e-5)
    assert entries[0]['layer'] == 'blocks.0.out'
    assert entries[0]['error_before'] > 0.1 > 1e-6 > entries[0]['error_after']


def test_a_gap_of_several_blocks_has_one_repair():
    ones = torch.ones(4)
    teacher = stack(None, ones, 2 * ones, None)
    student = copy.deepcopy(teacher)
    batches = [dict(inputs=torch.randn(50, 4)) for _ in range(4)]
    repaired(teacher, student, batches, removed=(1, 2), refit=False)
    inputs = torch.randn(7, 4)
    assert torch.allclose(student(inputs), teacher(inputs), atol=1e-2)


def test_padding_is_left_out():
    teacher = stack(None, torch.ones(4), None)
    clean, padded = copy.deepcopy(teacher), copy.deepcopy(teacher)
    samples = [BaseDataElement() for _ in range(2)]
    for sample in samples:
        sample.set_metainfo(dict(window_size=10, valid_steps=6))
    windows = [torch.randn(2, 10, 4) for _ in range(4)]
    dirty = [window.clone() for window in windows]
    for window in dirty:
        window[:, 6:] = 1e4
    for student, inputs in ((clean, windows), (padded, dirty)):
        entries = repaired(
            teacher, student,
            [dict(inputs=x, data_samples=samples) for x in inputs])
        assert entries[0]['tokens'] == 4 * 2 * 6
    for ours, theirs in zip(clean.parameters(), padded.parameters()):
        assert torch.equal(ours, theirs)


def test_a_change_that_does_not_help_is_not_made():
    teacher = stack(None, torch.zeros(4), None)
    student = copy.deepcopy(teacher)
    batches = [dict(inputs=torch.randn(50, 4)) for _ in range(4)]
    entries = repaired(teacher, student, batches)
    assert not any(entry['kept'] for entry in entries)
    wanted = teacher.state_dict()
    for name, value in student.state_dict().items():
        assert torch.equal(value, wanted[name])


def test_blocks_that_cannot_be_repaired_are_named():
    init_default_scope('mmaction')
    teacher = MODELS.build(dict(type='mmpretrain.ResNet', depth=18))
    teacher.eval()
    student = copy.deepcopy(teacher)
    structure = BlockStack(student, 'layer3')
    structure.remove(1)
    entries = LinearRepair(refit=False)(student, teacher, structure, [1],
                                        [torch.randn(1, 3, 64, 64)], run)
    assert [e['layer'] for e in entries] == ['layer3.0']
    assert 'why_not' in entries[0]


@pytest.mark.parametrize('ridges', [[], [0.], [-1e-3]])
def test_ridges_must_be_positive(ridges):
    with pytest.raises(ValueError, match='repair.ridges'):
        LinearRepair(ridges=ridges)
