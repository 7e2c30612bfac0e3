"""Losses taken on the way, and what of padding and teacher remains."""
import gc
import weakref

from mmblockdrop.compression import BlockStack
from mmblockdrop.distillation import (BlockAlignment, FeatureAlignment,
                                      FeatureMSELoss, record)
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.logging import MMLogger
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

CLIPS = toy.FRAMES // toy.CLIP
TIMES = toy.CLIP // 2


@pytest.fixture(scope='module', autouse=True)
def _quiet():
    MMLogger.get_instance('mmengine', log_level='ERROR')


def build(checkpoint, backbone=None, **kwargs):
    """A wrapper around the toy localizer, one block short."""
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=toy.localizer(**backbone or {}),
            checkpoint=checkpoint,
            **kwargs))
    model.init_weights()
    BlockStack(model.student, 'backbone.blocks').remove(1)
    return model


def padded_batch(model, valid):
    """Windows of which ``valid`` steps each are real."""
    data = model.data_preprocessor(toy.batch(len(valid)), False)
    for sample, steps in zip(data['data_samples'], valid):
        sample.set_metainfo(dict(valid_steps=steps))
    return data


def gradients(model):
    return {n: p.grad for n, p in model.student.named_parameters()
            if p.grad is not None}


def features(rows, tokens=4 * TIMES):
    torch.manual_seed(0)
    return [torch.randn(rows, tokens, 3) for _ in range(2)]


def compare(align, student, s, t, samples):
    s = s.clone().requires_grad_()
    value = align.compare('backbone.blocks.0', s, t, student, samples)
    value.backward()
    return value.detach(), s.grad


# valid steps of two windows of eight, real times of their two clips of four
CASES = [((8, 8), (4, 4, 4, 4)), ((8, 3), (4, 4, 3, 0)),
         ((5, 8), (4, 1, 4, 4)), ((4, 1), (4, 0, 1, 0)), ((0, 8),
                                                         (0, 0, 4, 4))]


@pytest.mark.parametrize('valid, real', CASES)
@pytest.mark.parametrize('tokenwise', [True, False])
def test_padding_changes_no_loss_and_gets_no_gradient(valid, real, tokenwise):
    student = MODELS.build(toy.localizer())
    samples = toy.batch(2)['data_samples']
    for sample, steps in zip(samples, valid):
        sample.set_metainfo(dict(valid_steps=steps))
    align = BlockAlignment()
    align.loss.tokenwise = tokenwise
    s, t = features(2 * CLIPS)
    # [clips, times, places, C] of what shows real video
    mask = torch.arange(TIMES) < torch.tensor(real).unsqueeze(1)
    if not tokenwise:
        mask = mask.any(1, keepdim=True).expand(-1, TIMES)
    value, grad = compare(align, student, s, t, samples)
    gap = (s - t).unflatten(1, (TIMES, -1))[mask]
    torch.testing.assert_close(value, gap.square().mean())
    grad = grad.unflatten(1, (TIMES, -1))
    assert grad[mask].abs().min() > 0
    assert not grad[~mask].any()
    loud = torch.where(mask.repeat_interleave(4, 1).unsqueeze(-1), s, 1e3)
    assert compare(align, student, loud, t, samples)[0] == value


def test_all_counts_where_padding_is_unknown():
    """Rows that are not clips, or samples without valid steps."""
    student = MODELS.build(toy.localizer())
    samples = toy.batch(2)['data_samples']
    samples[0].set_metainfo(dict(valid_steps=3))
    for rows, data in ((3, samples), (4, [])):
        s, t = features(rows)
        value, _ = compare(BlockAlignment(), student, s, t, data)
        torch.testing.assert_close(value, (s - t).square().mean())


def test_a_window_without_video_costs_nothing_but_stays_connected():
    student = MODELS.build(toy.localizer())
    samples = toy.batch(1)['data_samples']
    samples[0].set_metainfo(dict(valid_steps=0))
    s, t = features(CLIPS)
    value, grad = compare(BlockAlignment(), student, s, t, samples)
    assert value == 0 and not grad.any()


@pytest.mark.parametrize('axis', [1, 2])
def test_axis_of_time(axis):
    student = nn.Module()
    student.window_size = toy.STEPS
    samples = toy.batch(1)['data_samples']
    samples[0].set_metainfo(dict(valid_steps=6))
    torch.manual_seed(0)
    shape = [CLIPS, 3, 2, 2, 2]
    shape[axis] = TIMES
    s, t = torch.randn(2, *shape)
    align = BlockAlignment(time_axis=axis)
    value, _ = compare(align, student, s, t, samples)
    gap = (s - t).movedim(axis, 1)
    real = torch.cat((gap[0], gap[1, :2]))
    torch.testing.assert_close(value, real.square().mean())


def test_the_whole_model_ignores_padding(trained):
    only_blocks = dict(block=dict(type='mmblockdrop.BlockAlignment'))
    model = build(trained, alignments=only_blocks).eval()
    data = padded_batch(model, (8, 3))
    first = model(**data, mode='loss')['loss_align_block']
    data['inputs'][1, ..., toy.CLIP:, :, :] += 9.  # the padded clip
    second = model(**data, mode='loss')['loss_align_block']
    torch.testing.assert_close(first, second, rtol=1e-6, atol=0)


class Watching(FeatureAlignment):
    """Which teacher features are alive when a block is compared."""

    def __init__(self):
        super().__init__(dict(type='mmblockdrop.FeatureMSELoss'))
        self.seen, self.alive = [], []

    def paths(self, student):
        return BlockAlignment().paths(student)

    def compare(self, path, student_out, teacher_out, student, samples):
        self.seen.append(weakref.ref(teacher_out))
        gc.collect()
        self.alive.append(sum(ref() is not None for ref in self.seen))
        return self.loss(student_out, teacher_out)


def test_a_teacher_feature_lives_until_its_loss(trained):
    model = build(trained, alignments=dict())
    watching = model.alignments['watching'] = Watching()
    model.set_teacher(trained)
    data = padded_batch(model, (8, 8))
    losses = model(**data, mode='loss')
    assert watching.alive == [1] * (toy.DEPTH - 1)
    sum(losses.values()).backward()
    assert model.student.backbone.blocks[0].norm1.weight.grad is not None


def test_the_teacher_runs_first(trained):
    model = build(trained)
    data = padded_batch(model, (8, 8))
    order = []
    for name in ('teacher', 'student'):
        for i, block in enumerate(getattr(model, name).backbone.blocks):
            block.register_forward_hook(
                lambda *args, place=(name, i): order.append(place))
    model(**data, mode='loss')
    assert order == [(name, i) for name in ('teacher', 'student')
                     for i in range(toy.DEPTH)]


@pytest.mark.parametrize('value', [True, False])
def test_configs_that_walked_together_still_run(trained, value):
    torch.manual_seed(0)
    old = build(trained, together=value)
    new = build(trained)
    losses = []
    for model in (old, new):
        model.eval()
        data = model.data_preprocessor(toy.batch(), False)
        losses.append(model(**data, mode='loss'))
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    assert any(name.startswith('loss_align_') for name in losses[0])


class InParts(nn.Module):
    """Sends its clips through a module part by part."""

    def __init__(self, module, parts):
        super().__init__()
        self.inner, self.parts = module, parts
        self.register_buffer('calls', torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return torch.cat([self.inner(part) for part in x.chunk(self.parts)])


def test_a_module_that_runs_in_parts_is_compared_once(trained):
    losses = []
    for parts in (1, 2):
        model = build(
            trained,
            alignments=dict(
                block=dict(type='mmblockdrop.ModuleAlignment',
                           module='backbone.blocks.2')))
        for localizer in (model.student, model.teacher):
            blocks = localizer.backbone.blocks
            blocks[2] = InParts(blocks[2], parts)
        model.alignments['block'].module = 'backbone.blocks.2.inner'
        losses.append(model(**padded_batch(model, (8, 8)), mode='loss'))
        assert model.student.backbone.blocks[2].calls == 1
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)


def test_more_runs_than_in_the_teacher_are_rejected(trained):
    model = build(
        trained,
        alignments=dict(
            block=dict(type='mmblockdrop.ModuleAlignment',
                       module='backbone.blocks.2')))
    blocks = model.student.backbone.blocks
    blocks[3] = nn.Sequential(blocks[3], blocks[2])
    with pytest.raises(ValueError, match="module='backbone.blocks.2'"):
        model(**padded_batch(model, (8, 8)), mode='loss')


def test_an_error_leaves_nothing_behind(trained):
    model = build(trained)
    data = padded_batch(model, (8, 8))
    wanted = model(**data, mode='loss')
    for name in ('teacher', 'student'):
        block = getattr(model, name).backbone.blocks[3]

        def fail(*args):
            raise ArithmeticError(name)

        handle = block.register_forward_pre_hook(fail)
        with pytest.raises(ArithmeticError, match=name):
            model(**data, mode='loss')
        handle.remove()
    again = model(**data, mode='loss')
    assert torch.equal(again['loss_align_block'], wanted['loss_align_block'])


def test_the_teacher_has_the_precision_of_the_student(trained):
    model = build(trained)
    data = padded_batch(model, (8, 8))
    seen = []
    model.teacher.backbone.blocks[2].mlp.register_forward_hook(
        lambda module, args, out: seen.append(
            (out.dtype, torch.is_grad_enabled())))
    with torch.autocast('cpu', torch.bfloat16):
        model(**data, mode='loss')
    model(**data, mode='loss')
    assert seen == [(torch.bfloat16, False), (torch.float32, False)]


def test_same_losses_as_from_two_whole_recordings(trained):
    model = build(trained).train()
    data = padded_batch(model, (8, 3))
    torch.manual_seed(0)
    losses = model(**data, mode='loss')
    paths = model.alignment_paths()
    with torch.no_grad(), record(model.teacher, paths) as theirs:
        model.teacher(**data)
    torch.manual_seed(0)
    with record(model.student, paths) as ours:
        model.student(**data, mode='loss')
    for name, align in model.alignments.items():
        assert torch.equal(
            losses[f'loss_align_{name}'],
            align(ours, theirs, model.student, data['data_samples']))


def test_an_encoder_that_takes_its_clips_in_chunks(trained):
    model = build(trained).eval()
    data = padded_batch(model, (8, 3))
    with torch.no_grad():
        whole = model(**data, mode='loss')
        for chunks in ((1, None), (3, 3), (None, 1)):
            (model.student.encoder.clip_chunk,
             model.teacher.encoder.clip_chunk) = chunks
            part = model(**data, mode='loss')
            for name, value in whole.items():
                torch.testing.assert_close(part[name], value)


class Hidden(nn.Module):
    """Runs a module without gradients."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, x):
        with torch.no_grad():
            return self.inner(x)


def test_modules_without_gradients_are_rejected(trained):
    model = build(
        trained,
        alignments=dict(
            block=dict(
                type='mmblockdrop.ModuleAlignment', module='backbone.blocks'
                '.2')))
    blocks = model.student.backbone.blocks
    inner = blocks[2]
    blocks[2] = nn.Identity()
    model.student.backbone.blocks[3] = nn.Sequential(
        Hidden(inner), blocks[3])
    model.alignments['block'].module = 'backbone.blocks.3.0.inner'
    model.teacher.backbone.blocks[3] = nn.Sequential(
        Hidden(model.teacher.backbone.blocks[2]),
        model.teacher.backbone.blocks[3])
    with pytest.raises(ValueError, match='without gradients'):
        model(**padded_batch(model, (8, 8)), mode='loss')


def test_recomputing_under_ddp_with_a_static_graph(trained, tmp_path):
    dist.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        results = []
        for with_cp, static in ((False, False), (True, True)):
            model = build(trained, backbone=dict(with_cp=with_cp)).train()
            wrapped = DDP(model, static_graph=static,
                          find_unused_parameters=not static)
            for step in range(2):
                torch.manual_seed(step)
                model.zero_grad()
                losses = wrapped(**padded_batch(model, (8, 3)), mode='loss')
                sum(losses.values()).backward()
            results.append(gradients(model))
    finally:
        dist.destroy_process_group()
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


def test_nothing_to_compare_costs_nothing():
    empty = torch.zeros(0, 3, requires_grad=True)
    value = FeatureMSELoss()(empty, torch.zeros(0, 3))
    value.backward()
    assert value == 0 and empty.grad.shape == (0, 3)
