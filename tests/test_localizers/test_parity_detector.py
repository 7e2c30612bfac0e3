"""The whole detector against the numbers of the published code."""
import re

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS

import pytest
import torch
from mmengine.logging import MMLogger
from parity_weights import (load, localizer_config, merged_state, our_name,
                            our_state, samples)

pytestmark = pytest.mark.parity

FEATURE, OUTPUT, GRID, SCORE = 1e-4, 5e-5, 2e-4, 1e-5


@pytest.fixture(scope='module')
def parts(golden):
    """(recorded part, configs) for both benchmarks."""
    MMLogger.get_instance('mmengine', log_level='ERROR')
    recorded = golden('pbd_detector.pt')
    configs = golden('pbd_detector_config.json')
    return [(recorded, configs),
            (recorded['anet_like'], configs['anet_like'])]


def build(config, state):
    model = MODELS.build(config).eval()
    load(model, state)
    return model


def student(part, configs, gold, frames=True, weights='state_dict'):
    count = part['inputs'].shape[3] if frames else None
    config = localizer_config(configs['student'], count, gold['drop_idx'])
    return build(config, our_state(part['checkpoint'][weights]))


def normalized(model, frames):
    data = dict(inputs=list(frames), data_samples=None)
    return model.data_preprocessor(data)['inputs']


def assert_close(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def compare(model, inputs, data_samples, gold):
    with torch.no_grad():
        preds = model(inputs, data_samples, mode='tensor')
    if 'points' in gold:
        assert all(map(torch.equal, preds.points, gold['points']))
        assert all(map(torch.equal, preds.masks, gold['level_masks']))
    if 'cls_logits' in gold:
        assert_close(preds.cls_logits, gold['cls_logits'], OUTPUT)
        assert_close(preds.reg_offsets, gold['reg_offsets'], OUTPUT)
    segments, scores = model.head.decode(preds)
    valid = model.head.flatten(preds).valid
    assert_close([x[v] for x, v in zip(segments, valid)], gold['proposals'],
                 GRID)
    assert_close([x[v] for x, v in zip(scores, valid)], gold['scores'], SCORE)


def encode(model, frames, gold):
    inputs = normalized(model, frames)
    with torch.no_grad():
        feats = model.extract_feat(inputs)
    assert_close(feats, gold['backbone_feat'], FEATURE)
    return inputs


def test_features_to_proposals(parts):
    for part, configs in parts:
        for gold in part['student'].values():
            model = student(part, configs, gold, frames=False)
            compare(model, gold['backbone_feat'], samples(part), gold)


def test_frames_to_proposals(parts):
    for part, configs in parts:
        for gold in part['student'].values():
            model = student(part, configs, gold)
            inputs = encode(model, part['inputs'], gold)
            compare(model, inputs, samples(part), gold)


def test_native_size_and_averaged_weights(parts):
    part, configs = parts[0]
    native = samples(part)[:len(part['masks_native'])]
    for sample, mask in zip(native, part['masks_native']):
        sample.set_metainfo(dict(valid_steps=int(mask.sum())))
    for gold in part['student'].values():
        model = student(part, configs, gold)
        inputs = encode(model, part['inputs_native'], gold['native'])
        compare(model, inputs, native, gold['native'])
        model = student(part, configs, gold, weights='state_dict_ema')
        inputs = encode(model, part['inputs'], gold['ema'])
        compare(model, inputs, samples(part), gold['ema'])


def test_baselines_and_teacher(parts):
    part, configs = parts[0]
    frames = part['inputs'].shape[3]
    merged = build(
        localizer_config(configs['baseline_cp'], frames), merged_state(part))
    gold = part['baseline_cp']
    inputs = encode(merged, part['inputs'], gold)
    compare(merged, inputs, samples(part), gold)
    assert_losses(merged(inputs, samples(part), mode='loss'),
                  gold['losses_eval_mode'])

    attached = build(
        localizer_config(configs['baseline_lora'], frames),
        our_state(part['checkpoint']['state_dict_ema']))
    gold = part['baseline_lora_ema']
    compare(attached, encode(attached, part['inputs'], gold), samples(part),
            gold)

    teacher = build(
        localizer_config(configs['teacher'], frames), merged_state(part))
    gold = part['teacher']
    preds = teacher(encode(teacher, part['inputs'], gold), samples(part))
    head, flat = teacher.head, teacher.head.flatten(preds)
    assert_close(flat.cls_logits[flat.valid], gold['cls_target'], OUTPUT)
    positive = head.positives(preds, samples(part))
    assert_close(head.decode(preds)[0][positive], gold['reg_target'], GRID)


def assert_losses(ours, theirs):
    for name in ('cls', 'reg'):
        assert ours[f'loss_{name}'].item() == pytest.approx(
            theirs[f'{name}_loss'], rel=2e-5)


def without_stochastic_depth(model):
    model.train()
    for module in model.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.
    return model


def test_task_losses_in_both_modes(parts):
    for part, configs in parts:
        for gold in part['student'].values():
            model = student(part, configs, gold, frames=False)
            feats, train = gold['backbone_feat'], gold['train']
            losses = model(feats, samples(part), mode='loss')
            assert_losses(losses, train['losses_eval_mode'])
            without_stochastic_depth(model)
            before = train['loss_normalizer_before'].float()
            assert torch.equal(model.head.loss_normalizer, before)
            losses = model(feats, samples(part), mode='loss')
            assert_losses(losses, train['losses_train_mode'])
            torch.testing.assert_close(model.head.loss_normalizer,
                                       train['loss_normalizer_after'])


def test_window_results(parts):
    part, configs = parts[0]
    for gold in part['student'].values():
        model = student(part, configs, gold, frames=False)
        with torch.no_grad():
            results = model(
                gold['backbone_feat'], samples(part), mode='predict')
        for sample in results:
            theirs = gold['window_results'][sample.video_name]
            same_detections(sample.pred_instances, theirs, part['classes'])


def same_detections(ours, theirs, classes):
    """Each of ours rounds to one of theirs and the other way round."""
    assert len(ours) == len(theirs)
    a = torch.cat((ours.segments, ours.scores[:, None],
                   ours.labels[:, None].float()), 1).double()
    b = torch.tensor([
        x['segment'] + [x['score'], classes.index(x['label'])] for x in theirs
    ]).double()
    off = torch.tensor([5.1e-3, 5.1e-3, 6.1e-5, 1e-6]).double()
    match = ((a[:, None] - b).abs() <= off).all(-1)
    assert match.any(0).all() and match.any(1).all()


def wrapped(part, configs, train, dynamic, tmp_path):
    """Student beside its teacher with the published alignments."""
    kl = dict(
        type='mmblockdrop.ClassKLLoss',
        temperature=configs['student']['temperature'])
    alignments = dict(
        out=dict(type='mmblockdrop.PublishedBlockAlignment'),
        cls_kd=dict(type='mmblockdrop.ClassAlignment', loss=kl),
        reg_kd=dict(
            type='mmblockdrop.SegmentAlignment',
            loss=dict(type='mmblockdrop.DIoULoss')))
    if configs['student']['rpn_head']['num_classes'] == 1:
        alignments.pop('cls_kd')
    frames = part['inputs'].shape[3]
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=localizer_config(configs['student'], frames),
            alignments=alignments))
    load(model.student, our_state(part['checkpoint']['state_dict']))
    stack = BlockStack(model.student, 'backbone.blocks')
    teacher = merged_state(part)
    for index in dynamic:
        stack.remove(index)
        teacher = {
            k: v
            for k, v in teacher.items()
            if not k.startswith(f'backbone.blocks.{index}.')
        }
    record = dict(
        stack='backbone.blocks',
        depth=len(stack),
        rounds=[dict(dropped=dynamic)])
    torch.save(
        dict(state_dict=teacher, meta=dict(blockdrop=record)),
        tmp_path / 'teacher.pth')
    model.set_teacher(str(tmp_path / 'teacher.pth'))
    for index in set(train['drop_idx']) - set(dynamic):
        stack.remove(index)
    chosen = {our_name(name, True) for name in train['requires_grad']}
    for name, parameter in model.student.named_parameters():
        parameter.requires_grad = name in chosen
    return without_stochastic_depth(model)


def cases(part):
    for gold in part['student'].values():
        yield gold['train'], gold['drop_idx'], []
    if 'dynamic_teacher' in part:
        gold = part['dynamic_teacher']
        yield gold['train'], gold['student_drop_idx'], gold['teacher_drop_idx']


def in_double(model):
    """Student and teacher in double precision, on the encoder's features.

    A ReLU unit lies at 3e-8; on which side of zero single precision puts it
    depends on the processor, and moves gradients by 1e-4.
    """
    for localizer in (model.student.double(), model.teacher.double()):
        localizer.projection.register_forward_pre_hook(
            lambda module, args: (args[0].double(), *args[1:]))
    return model


def test_total_cost_and_gradients(parts, tmp_path):
    for part, configs in parts:
        for train, drops, dynamic in cases(part):
            train = dict(
                train,
                drop_idx=drops,
                requires_grad=train['requires_grad_after_forward'])
            model = in_double(
                wrapped(part, configs, train, dynamic, tmp_path))
            inputs = normalized(model.student, part['inputs']).double()
            cost = sum(model(inputs, samples(part), mode='loss').values())
            cost.backward()
            assert cost.item() == pytest.approx(
                train['cost_train_mode'], rel=2e-5)
            compare_gradients(model.student, train)


def compare_gradients(model, train):
    named = dict(model.named_parameters())
    total = train['total_grad_norm']
    seen = []
    for name, theirs in train['grad_norms'].items():
        ours = named[our_name(name, True)].grad.norm().item()
        seen.append(ours)
        if theirs > 1e-6 * total:
            assert ours == pytest.approx(theirs, rel=1e-4), name
        else:
            assert ours <= 2e-6 * total, name
    assert torch.tensor(seen).norm().item() == pytest.approx(total, rel=1e-4)
    idle = {name for name, p in named.items()
            if p.requires_grad and p.grad is None}
    assert idle == {our_name(x, True) for x in train['trainable_without_grad']}
    assert all(re.search('fc_norm', name) for name in idle)
