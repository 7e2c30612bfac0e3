"""What is compared, by original number, level and point."""
from mmblockdrop.compression import DroppedBlock
from mmblockdrop.distillation import (BlockAlignment, ClassAlignment,
                                      ModuleAlignment, SegmentAlignment,
                                      record)
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from torch import nn


def student_without(*dropped, depth=3):
    student = nn.Module()
    student.backbone = nn.Module()
    student.backbone.blocks = nn.ModuleList(
        DroppedBlock() if i in dropped else nn.Linear(1, 1)
        for i in range(depth))
    return student


def recording(features, tail=''):
    """Recording of a stack, as the wrapper makes it."""
    return {
        f'backbone.blocks.{i}{tail}': feature
        for i, feature in enumerate(features) if feature.numel()
    }


@pytest.mark.parity
def test_block_losses_as_published(golden):
    losses = dict(mid='FeatureMSELoss', mid_rel='TokenRelationLoss')
    losses.update(out='FeatureMSELoss', out_rel='TokenRelationLoss')
    for case in golden('kd_losses.pt')['backbone_losses']:
        depth = len(case['student_out'])
        student = student_without(*case['drop_idx'], depth=depth)
        for name, kind in losses.items():
            where = name.split('_')[0]
            tail = dict(mid='.norm2:input', out='')[where]
            align = BlockAlignment(
                submodule=tail[1:], loss=dict(type=f'mmblockdrop.{kind}'))
            value = align(
                recording(case[f'student_{where}'], tail),
                recording(case[f'teacher_{where}'], tail), student, [])
            torch.testing.assert_close(
                value,
                torch.tensor(case['losses'][f'loss_{name}']),
                rtol=1e-5,
                atol=1e-6)


def test_block_loss_is_the_mean_over_surviving_blocks():
    student = student_without(1)
    ones = [torch.ones(2, 3, 4)] * 3
    zeros = [torch.full((2, 3, 4), x) for x in (0., 100., -1.)]
    align = BlockAlignment()
    assert align.paths(student) == ['backbone.blocks.0', 'backbone.blocks.2']
    value = align(recording(ones), recording(zeros), student, [])
    assert value == (1 + 4) / 2
    assert BlockAlignment(submodule='attn').paths(student) == [
        'backbone.blocks.0.attn', 'backbone.blocks.2.attn'
    ]


@pytest.fixture
def predictions():
    """Two localizers, their predictions and the samples."""
    torch.manual_seed(0)
    models = [MODELS.build(toy.localizer()).eval() for _ in range(2)]
    for model in models:
        nn.init.constant_(model.head.reg_head.bias, 1.)
    data = models[0].data_preprocessor(toy.batch(3), False)
    samples = data['data_samples']
    samples[1].set_metainfo(dict(valid_steps=5))
    paths = ['head', 'neck', 'backbone']
    kept = []
    for model in models:
        with torch.no_grad(), record(model, paths) as outputs:
            model(data['inputs'], samples)
        kept.append(outputs)
    return models[0], kept[0], kept[1], samples


def test_classes_are_compared_at_valid_points_of_all_levels(predictions):
    model, ours, theirs, samples = predictions
    align = ClassAlignment(loss=dict(type='mmblockdrop.ClassKLLoss',
                                     activation='sigmoid'))
    assert align.paths(model) == ['head']
    value = align(ours, theirs, model, samples)
    flat = [model.head.flatten(x['head']) for x in (ours, theirs)]
    points = [f.cls_logits[flat[0].valid] for f in flat]
    assert len(points[0]) == 3 * (toy.STEPS + toy.STEPS // 2) - 3 - 1
    torch.testing.assert_close(value, align.loss(*points))
    theirs['head'].cls_logits[0][1, :, 5:] += 50  # padding
    assert torch.equal(align(ours, theirs, model, samples), value)
    theirs['head'].cls_logits[0][1, :, :5] += 1
    assert align(ours, theirs, model, samples) != value


def test_segments_are_compared_at_positive_points(predictions):
    model, ours, theirs, samples = predictions
    for kind in ('GIoULoss', 'DIoULoss'):
        align = SegmentAlignment(loss=dict(type=f'mmblockdrop.{kind}'))
        value = align(ours, theirs, model, samples)
        positive = model.head.positives(ours['head'], samples)
        assert 0 < positive.sum() < positive.numel()
        segments = [
            model.head.decode(x['head'])[0][positive] for x in (ours, theirs)
        ]
        torch.testing.assert_close(value, align.loss(*segments))
    assert type(SegmentAlignment().loss).__name__ == 'GIoULoss'


def test_windows_without_action_cost_nothing_but_stay_connected(predictions):
    model, _, theirs, samples = predictions
    for sample in samples:
        sample.gt_instances = sample.gt_instances[torch.zeros(1).bool()]
    with record(model, ['head']) as ours:
        data = model.data_preprocessor(toy.batch(3), False)
        model(data['inputs'], samples)
    value = SegmentAlignment()(ours, theirs, model, samples)
    value.backward()
    assert value == 0
    assert model.head.reg_head.weight.grad is not None


def test_any_module_can_be_compared(predictions):
    model, ours, theirs, samples = predictions
    align = ModuleAlignment('backbone')
    assert align.paths(model) == ['backbone']
    wanted = (ours['backbone'] - theirs['backbone']).square().mean()
    torch.testing.assert_close(align(ours, theirs, model, samples), wanted)


def test_levels_of_a_pyramid_are_averaged(predictions):
    model, ours, theirs, samples = predictions
    value = ModuleAlignment('neck', index=0)(ours, theirs, model, samples)
    levels = [
        (a - b).square().mean()
        for a, b in zip(ours['neck'][0], theirs['neck'][0])
    ]
    assert len(levels) == 2
    torch.testing.assert_close(value, sum(levels) / 2)
