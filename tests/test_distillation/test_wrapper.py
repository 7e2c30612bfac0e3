"""Student and teacher as one model."""
import copy

from mmblockdrop.compression import BlockStack, has_lora
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.logging import MMLogger


@pytest.fixture(scope='module', autouse=True)
def _quiet():
    MMLogger.get_instance('mmengine', log_level='ERROR')


def build(checkpoint, initialised=True, backbone=None, **kwargs):
    """A wrapper around the toy localizer."""
    cfg = dict(
        type='mmblockdrop.TeacherStudentWrapper',
        localizer=toy.localizer(**backbone or {}),
        checkpoint=checkpoint,
        **kwargs)
    model = MODELS.build(cfg)
    if initialised:
        model.init_weights()
    return model


def plain(state):
    model = MODELS.build(toy.localizer())
    model.load_state_dict(state, strict=True)
    return model.eval()


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)['state_dict']


def batch(model):
    return model.data_preprocessor(toy.batch(), False)


def save(path, state, **meta):
    torch.save(dict(state_dict=state, meta=meta), path)
    return str(path)


def without(state, *indices):
    """State dict of a localizer that has lost blocks."""
    gone = tuple(f'backbone.blocks.{i}.' for i in indices)
    return {k: v for k, v in state.items() if not k.startswith(gone)}


def record(*dropped, depth=toy.DEPTH):
    return dict(
        stack='backbone.blocks',
        depth=depth,
        rounds=[dict(dropped=[i]) for i in dropped])


def test_state_dict_is_that_of_the_plain_localizer(trained):
    model = build(trained)
    state, wanted = model.state_dict(), weights(trained)
    assert list(state) == list(wanted)
    assert all(torch.equal(state[k], wanted[k]) for k in wanted)
    plain(state)
    fresh = build(None, initialised=False, alignments={})
    fresh.load_state_dict(wanted, strict=True)
    assert all(torch.equal(v, wanted[k])
               for k, v in fresh.student.state_dict().items())
    holder = torch.nn.ModuleDict(dict(module=model))
    assert set(holder.state_dict()) == {f'module.{k}' for k in wanted}
    holder.load_state_dict(holder.state_dict(), strict=True)


def test_nobody_sees_the_teacher(trained):
    model = build(trained)
    inside = {id(p) for p in model.parameters()}
    assert not inside & {id(p) for p in model.teacher.parameters()}
    assert len(inside) == len(list(model.student.parameters()))
    assert all(m is not model.teacher for m in model.modules())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    clone = copy.deepcopy(model)
    assert clone.teacher is model.teacher
    assert clone.student is not model.student
    clone.student.head.cls_head.weight.data.fill_(7.)
    assert (model.student.head.cls_head.weight != 7.).all()


def test_teacher_stays_in_evaluation_mode_and_moves_along(trained):
    model = build(trained).train()
    assert model.student.training
    assert not any(m.training for m in model.teacher.modules())
    model.double()
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float64}


def test_predict_and_tensor_are_the_student_alone(trained):
    model = build(trained).eval()
    BlockStack(model.student, 'backbone.blocks').remove(1)
    student = MODELS.build(toy.localizer(drop_blocks=[1])).eval()
    student.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        raw = model(**batch(model), mode='tensor')
        wanted = student(**batch(model), mode='tensor')
        assert all(map(torch.equal, raw.cls_logits, wanted.cls_logits))
        ours = model.test_step(toy.batch())
        theirs = student.test_step(toy.batch())
    for a, b in zip(ours, theirs):
        assert torch.equal(a.pred_instances.segments,
                           b.pred_instances.segments)
        assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)


def test_losses_of_a_shortened_student(trained):
    model = build(trained).eval()
    losses = model(**batch(model), mode='loss')
    assert set(losses) == {
        'loss_cls', 'loss_reg', 'loss_align_block', 'loss_align_cls',
        'loss_align_seg'
    }
    for name in ('block', 'cls', 'seg'):
        value = losses[f'loss_align_{name}'].item()
        assert value == pytest.approx(0, abs=1e-6)
    BlockStack(model.student, 'backbone.blocks').remove(1)
    shorter = model(**batch(model), mode='loss')
    student = MODELS.build(toy.localizer(drop_blocks=[1])).eval()
    student.load_state_dict(model.state_dict(), strict=True)
    task = student(**batch(model), mode='loss')
    for name, value in task.items():
        assert torch.equal(shorter[name], value)
    for name in ('block', 'cls', 'seg'):
        assert shorter[f'loss_align_{name}'] > 1e-3


def test_training_changes_the_student_only(trained):
    model = build(trained)
    BlockStack(model.student, 'backbone.blocks').remove(0)
    before = copy.deepcopy(model.teacher.state_dict())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(model(**batch(model), mode='loss').values()).backward()
    optimizer.step()
    after = model.teacher.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.grad is None for p in model.teacher.parameters())
    changed = model.state_dict()['backbone.blocks.1.norm1.weight']
    assert not torch.equal(changed, before['backbone.blocks.1.norm1.weight'])


@pytest.mark.parametrize('submodule', ['', 'norm2:input'])
def test_recomputing_activations_changes_no_gradient(trained, submodule):
    gradients = []
    for with_cp in (False, True):
        model = build(
            trained,
            backbone=dict(with_cp=with_cp),
            alignments=dict(
                block=dict(
                    type='mmblockdrop.BlockAlignment', submodule=submodule),
                cls=dict(type='mmblockdrop.ClassAlignment')))
        BlockStack(model.student, 'backbone.blocks').remove(1)
        model.train()
        sum(model(**batch(model), mode='loss').values()).backward()
        gradients.append({
            name: p.grad
            for name, p in model.student.named_parameters()
            if p.grad is not None
        })
    plain_pass, recomputed = gradients
    assert plain_pass.keys() == recomputed.keys()
    for name, gradient in plain_pass.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_losses_are_float_under_autocast(trained):
    model = build(trained).eval()
    BlockStack(model.student, 'backbone.blocks').remove(1)
    wanted = model(**batch(model), mode='loss')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(**batch(model), mode='loss')
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(wanted[name].item(), rel=0.2)


def test_ground_truth_only_needs_no_teacher(trained):
    model = build(trained, alignments={}, task_weight=3.).eval()
    assert model.teacher is None
    student = plain(weights(trained))
    task = student(**batch(student), mode='loss')
    losses = model(**batch(model), mode='loss')
    assert set(losses) == {'loss_cls', 'loss_reg'}
    for name, value in task.items():
        torch.testing.assert_close(losses[name], 3 * value)


def test_weights_of_task_and_alignment(trained):
    alignments = dict(
        block=dict(type='mmblockdrop.BlockAlignment', weight=0.5),
        whole=dict(type='mmblockdrop.BlockAlignment'))
    model = build(trained, alignments=alignments, task_weight=0.).eval()
    BlockStack(model.student, 'backbone.blocks').remove(2)
    losses = model(**batch(model), mode='loss')
    torch.testing.assert_close(losses['loss_align_block'] * 2,
                               losses['loss_align_whole'])
    assert losses['loss_cls'] == 0 and losses['loss_align_whole'] > 0


def test_lora_of_the_checkpoint_is_merged(trained, tmp_path):
    lora = dict(rank=2)
    source = MODELS.build(toy.localizer(lora=lora)).eval()
    source.load_state_dict(weights(trained))
    for name, value in source.named_parameters():
        if 'lora_' in name:
            torch.nn.init.normal_(value, std=0.2)
    path = save(tmp_path / 'lora.pth', {
        f'module.{k}': v
        for k, v in source.state_dict().items()
    })
    model = build(path, backbone=dict(lora=lora)).eval()
    assert not has_lora(model.student) and not has_lora(model.teacher)
    plain(model.state_dict())
    with torch.no_grad():
        wanted = source(**batch(source)).cls_logits
        for merged in (model.student, model.teacher):
            ours = merged(**batch(model)).cls_logits
            for a, b in zip(ours, wanted):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    model = build(trained, backbone=dict(lora=lora))
    assert not has_lora(model.student)


def test_start_from_a_compressed_checkpoint(trained, tmp_path):
    state = without(weights(trained), 2)
    path = save(tmp_path / 'short.pth', state, blockdrop=record(2))
    model = build(path)
    for localizer in (model.student, model.teacher):
        assert BlockStack(localizer, 'backbone.blocks').remaining == [0, 1, 3]
    assert set(model.state_dict()) == set(state)


def test_teacher_of_an_earlier_round_keeps_more_blocks(trained, tmp_path):
    model = build(trained).eval()
    stack = BlockStack(model.student, 'backbone.blocks')
    stack.remove(2)
    path = save(
        tmp_path / 'round_1.pth', model.state_dict(), blockdrop=record(2))
    stack.remove(0)
    model.set_teacher(path)
    teacher = BlockStack(model.teacher, 'backbone.blocks')
    assert teacher.remaining == [0, 1, 3] and stack.remaining == [1, 3]
    losses = model(**batch(model), mode='loss')
    assert losses['loss_align_block'] > 1e-3


def test_pretrained_encoder_is_not_fetched_again(trained):
    build(trained, backbone=dict(pretrained='nowhere/videomae.pth'))


@pytest.mark.parametrize('change,words', [
    (dict(depth=3), ['unexpected: backbone.blocks.3.']),
    (dict(depth=5), ['missing: backbone.blocks.4.']),
    (dict(num_frames=4), ['reshaped: backbone.pos_embed']),
    (dict(patch_size=4), ['reshaped: backbone.patch_embed.projection.weight',
                          '(16, 3, 2, 8, 8) instead of (16, 3, 2, 4, 4)']),
])
def test_checkpoint_of_another_size(trained, change, words):
    with pytest.raises(ValueError) as error:
        build(trained, backbone=change)
    for word in [trained, 'does not fit', *words]:
        assert word in str(error.value)


def test_compressed_checkpoint_of_another_depth(trained, tmp_path):
    path = save(tmp_path / 'short.pth', without(weights(trained), 2),
                blockdrop=record(2))
    with pytest.raises(ValueError, match='model with 4 blocks.*builds 5'):
        build(path, backbone=dict(depth=5))


def test_missing_checkpoint_is_named(trained):
    wrong = trained.replace('localizer.pth', 'localiser.pth')
    with pytest.raises(FileNotFoundError) as error:
        build(wrong)
    assert wrong in str(error.value)
    assert "did you mean 'localizer.pth'" in str(error.value)


def test_teacher_is_asked_for(trained):
    with pytest.raises(ValueError, match='model.checkpoint is None'):
        build(None)
    model = build(trained, initialised=False)
    with pytest.raises(RuntimeError, match=r'init_weights\(\)'):
        model(**batch(model), mode='loss')


@pytest.mark.parametrize('alignment,word', [
    (dict(type='mmblockdrop.BlockAlignment', stack='backbone.block'),
     "did you mean 'backbone.blocks'"),
    (dict(type='mmblockdrop.BlockAlignment', submodule='atn'),
     "did you mean 'backbone.blocks.0.attn"),
    (dict(type='mmblockdrop.ModuleAlignment', module='nek'),
     "did you mean 'neck'"),
    (dict(type='mmblockdrop.ClassAlignment', head='heads'),
     "did you mean 'head'"),
])
def test_wrong_paths_are_found_before_training(trained, alignment, word):
    with pytest.raises(ValueError, match=word):
        build(trained, alignments=dict(x=alignment))
