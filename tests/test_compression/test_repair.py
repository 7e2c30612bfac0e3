"""Removed blocks are repaired in closed form."""
import copy
from typing import Any, NamedTuple

from mmblockdrop.compression import BlockStack, HalfBlocks, LinearRepair
from mmblockdrop.registry import MODELS, REPAIRS

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import nn

BatchNorm = nn.modules.batchnorm._BatchNorm
VIT = dict(
    img_size=32, patch_size=8, embed_dims=48, depth=5, num_heads=2,
    num_frames=4)
PLAIN_VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(
        embed_dims=48, num_layers=5, num_heads=2, feedforward_channels=96),
    img_size=32,
    patch_size=8,
    out_type='featmap')
TIMESFORMER = dict(
    type='mmaction.TimeSformer',
    num_frames=4,
    img_size=32,
    patch_size=8,
    embed_dims=48,
    num_heads=2,
    num_transformer_layers=5,
    attention_type='divided_space_time')
CONVNEXT = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[2, 4], channels=[16, 32]),
    out_indices=1,
    layer_scale_init_value=0.5)


class Case(NamedTuple):
    """A backbone, its stack, what is removed, and what repair must reach."""
    cfg: dict
    path: Any
    shape: tuple
    removed: int
    share: float  # of the error of the features without repair


STACKS = dict(
    vit=Case(
        dict(VIT, type='mmaction.VisionTransformer', return_feat_map=True),
        'blocks', (4, 3, 4, 32, 32), 2, 0.6),
    lora_vit=Case(
        dict(VIT, type='mmblockdrop.LoRAViT', lora=dict(rank=2)), 'blocks',
        (4, 3, 4, 32, 32), 2, 0.6),
    plain_vit=Case(PLAIN_VIT, 'layers', (8, 3, 32, 32), 2, 0.6),
    vit_with_layer_scale=Case(
        dict(PLAIN_VIT, layer_scale_init_value=0.5), 'layers', (8, 3, 32, 32),
        2, 0.6),
    convnext=Case(CONVNEXT, 'stages.1', (4, 3, 64, 64), 2, 0.6),
    timesformer=Case(TIMESFORMER, 'transformer_layers.layers',
                     (4, 3, 4, 32, 32), 2, 0.6),
    swin_3d=Case(
        dict(
            type='mmaction.SwinTransformer3D',
            arch=dict(embed_dims=24, depths=[2, 4], num_heads=[2, 4]),
            window_size=(2, 2, 2),
            pretrained2d=False,
            out_indices=(1, )), ['layers.0.blocks', 'layers.1.blocks'],
        (4, 3, 4, 32, 32), 3, 0.6),
    swin_2d=Case(
        dict(
            type='mmpretrain.SwinTransformer',
            arch=dict(embed_dims=24, depths=[2, 4], num_heads=[2, 4]),
            window_size=4,
            out_indices=(1, )), ['stages.0.blocks', 'stages.1.blocks'],
        (8, 3, 32, 32), 3, 0.6),
    mvit=Case(
        dict(
            type='mmaction.MViT',
            arch=dict(
                embed_dims=16,
                num_layers=6,
                num_heads=1,
                downscale_indices=[2]),
            output_cls_token=False,
            spatial_size=32,
            temporal_size=4), 'blocks', (4, 3, 4, 32, 32), 3, 0.8),
    bottlenecks_2d=Case(
        dict(
            type='mmpretrain.ResNet',
            depth=50,
            stem_channels=16,
            base_channels=16,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1, )), ['layer1', 'layer2'], (4, 3, 64, 64), 5, 0.6),
    bottlenecks_3d=Case(
        dict(
            type='mmaction.ResNet3d',
            depth=50,
            base_channels=16,
            pretrained=None,
            pretrained2d=False,
            num_stages=2,
            spatial_strides=(1, 2),
            temporal_strides=(1, 1),
            dilations=(1, 1),
            out_indices=(1, )), ['layer1', 'layer2'], (4, 3, 4, 48, 48), 5,
        0.6))


def build(cfg):
    """A model whose blocks do something, and a copy of it."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    teacher = MODELS.build(cfg)
    teacher.eval()  # mmpretrain returns nothing here
    norms = any(isinstance(m, BatchNorm) for m in teacher.modules())
    for parameter in teacher.parameters():
        if parameter.dim() > 1:
            std = (2 / parameter[0].numel())**0.5 if norms else 0.08
            nn.init.normal_(parameter, std=std)
    for module in teacher.modules():
        if isinstance(module, BatchNorm):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.3)
    return teacher, copy.deepcopy(teacher)


def features(model, inputs):
    with torch.no_grad():
        found = model(inputs)
    while isinstance(found, (tuple, list)):
        found = found[-1]
    return found


def run(model, batch):
    return model(batch)


def remove_and_repair(case, removed=None, count=8, **options):
    """Models and what was recorded, with blocks removed and repaired."""
    teacher, student = build(case.cfg)
    batches = [torch.randn(*case.shape) for _ in range(count)]
    unseen = torch.randn(*case.shape)
    structure = BlockStack(student, case.path)
    structure.probe(lambda: student(unseen))
    removed = [case.removed] if removed is None else removed
    for part in removed:
        structure.remove(part)
    wanted, cut = features(teacher, unseen), features(student, unseen)
    repair = REPAIRS.build(dict(type='mmblockdrop.LinearRepair', **options))
    entries = repair(student, teacher, structure, removed, batches, run)
    errors = [(x - wanted).square().mean().item()
              for x in (cut, features(student, unseen))]
    return teacher, student, entries, errors


@pytest.mark.parametrize('name', STACKS)
def test_repair_brings_features_back(name):
    case = STACKS[name]
    teacher, student, entries, (cut, repaired) = remove_and_repair(case)
    assert repaired < case.share * cut
    assert entries[0]['kept'] and entries[0]['tokens'] > 0
    for entry in entries:
        assert entry['error_after'] <= entry['error_before']
    if name != 'lora_vit':  # whose LoRA is merged first
        assert set(student.state_dict()) <= set(teacher.state_dict())


@pytest.mark.parametrize('name', ['vit', 'plain_vit', 'timesformer'])
def test_what_makes_the_stream_stands_in_for_block_0(name):
    _, _, entries, (cut, repaired) = remove_and_repair(STACKS[name], [0])
    assert entries[0]['layer'] == 'patch_embed.projection.weight'
    assert entries[0]['error_after'] < 0.5 * entries[0]['error_before']
    assert repaired < 0.5 * cut


def test_a_stage_is_repaired_by_the_convolution_in_front_of_it():
    case = STACKS['convnext']._replace(path=['stages.0', 'stages.1'])
    _, _, entries, (cut, repaired) = remove_and_repair(
        case, [2, 3], refit=False)
    assert [e['layer'] for e in entries] == ['downsample_layers.1.1.weight']
    assert entries[0]['target'] == 'stages.1.1'
    assert repaired < 0.5 * cut


def test_where_nothing_makes_the_stream_it_says_so_and_goes_on():
    """A norm stands between patch embedding and blocks of a Swin."""
    _, _, entries, (cut, repaired) = remove_and_repair(STACKS['swin_3d'], [0])
    assert entries[0]['layer'] == 'layers.0.blocks.0'
    assert 'why_not' in entries[0]
    assert entries[1]['kept'] and repaired < cut


def test_layers_of_a_stage_before_do_not_fit():
    """Behind a stage the stream has another shape."""
    _, _, entries, _ = remove_and_repair(
        STACKS['swin_2d'], [2], refit=False)
    assert [e['layer'] for e in entries] == [
        'stages.1.blocks.0', 'stages.0.blocks.1',
        'stages.1.blocks.1.ffn.layers.1']
    assert ['why_not' in e for e in entries] == [True, True, False]


def test_both_layers_are_kept_where_they_lower_the_error():
    alone, both = (
        remove_and_repair(
            STACKS['plain_vit'], refit=False, both_layers=both)[2][0]
        for both in (False, True))
    assert both['with'] == ['layers.1.attn.proj'] and 'with' not in alone
    assert both['error_before'] == pytest.approx(alone['error_before'])
    assert both['error_after'] < alone['error_after']


def test_little_memory_fits_the_last_layer_alone():
    entry, = remove_and_repair(
        STACKS['plain_vit'], refit=False, both_layers=True,
        max_memory_gb=1e-6)[2]
    assert entry['kept'] and 'with' not in entry


def test_candidates_are_taken_in_groups_where_memory_is_little():
    teacher, student = build(PLAIN_VIT)
    structure = BlockStack(student, 'layers')
    batches = [torch.randn(4, 3, 32, 32) for _ in range(3)]
    calls, found = [], []

    def counted(model, batch):
        calls[-1] += model is teacher
        return model(batch)

    for size in (1., 1e-6):
        calls.append(0)
        found.append(
            LinearRepair(max_memory_gb=size).changes(
                student, teacher, structure, structure.candidates(), batches,
                counted))
    assert calls == [3, 15]
    for one, two in zip(found[0].values(), found[1].values()):
        assert one.place.name == two.place.name
        assert torch.equal(one.solution.change, two.solution.change)


@pytest.mark.parametrize('half', ['attn', 'mlp'])
def test_a_half_is_repaired_by_its_block(half):
    cfg, path, shape = STACKS['vit'][:3]
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


@pytest.mark.parametrize('refit', [False, True])
def test_several_gaps_are_repaired(refit):
    ones = torch.ones(4)
    teacher = stack(None, ones, None, -ones, None)
    student = copy.deepcopy(teacher)
    batches = [dict(inputs=torch.randn(50, 4)) for _ in range(4)]
    entries = repaired(teacher, student, batches, removed=(3, 1), refit=refit)
    assert [e['layer'] for e in entries][:2] == ['blocks.0.out',
                                                'blocks.2.out']
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


class Dropped(Residual):
    """With dropout, and a norm that a user keeps in evaluation mode."""

    def __init__(self, width):
        super().__init__(width)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(super().forward(self.norm(x)))


def test_modes_stay_and_nothing_is_dropped_at_random():
    torch.manual_seed(0)
    teacher = nn.Sequential(*(Dropped(4) for _ in range(3))).eval()
    batches = [dict(inputs=torch.randn(50, 4)) for _ in range(4)]
    students = []
    for training in (False, True):
        student = copy.deepcopy(teacher).train(training)
        student[0].norm.eval()
        repaired(teacher, student, batches)
        students.append(student)
        assert student[0].training == student[2].dropout.training == training
        assert not student[0].norm.training
    assert not any(m.training for m in teacher.modules())
    for one, two in zip(students[0].state_dict().values(),
                        students[1].state_dict().values()):
        assert torch.equal(one, two)


def test_mixed_precision_is_off():
    teacher = stack(None, torch.ones(4), None)
    batches = [dict(inputs=torch.randn(50, 4)) for _ in range(4)]
    plain, mixed = copy.deepcopy(teacher), copy.deepcopy(teacher)
    repaired(teacher, plain, batches)
    with torch.autocast('cpu', torch.bfloat16):
        repaired(teacher, mixed, batches)
    for one, two in zip(plain.parameters(), mixed.parameters()):
        assert torch.equal(one, two)


def test_weights_of_half_precision_are_repaired():
    ones = torch.ones(4, dtype=torch.bfloat16)
    teacher = stack(None, ones, None).bfloat16()
    student = copy.deepcopy(teacher)
    batches = [dict(inputs=torch.randn(50, 4).bfloat16()) for _ in range(4)]
    entries = repaired(teacher, student, batches)
    assert entries[0]['layer'] == 'blocks.0.out'
    assert entries[0]['error_after'] < 0.1 * entries[0]['error_before']


@pytest.mark.parametrize('gigabytes', [0., -1.])
def test_memory_must_be_positive(gigabytes):
    with pytest.raises(ValueError, match='repair.max_memory_gb'):
        LinearRepair(max_memory_gb=gigabytes)


@pytest.mark.parametrize('ridges', [[], [0.], [-1e-3]])
def test_ridges_must_be_positive(ridges):
    with pytest.raises(ValueError, match='repair.ridges'):
        LinearRepair(ridges=ridges)
