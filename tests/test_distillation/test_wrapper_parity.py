"""Every loss of the published distillation, through the wrapper."""
from mmblockdrop.compression import BlockStack
from mmblockdrop.distillation import record
from mmblockdrop.registry import MODELS

import pytest
import torch
from mmengine.logging import MMLogger
from parity_weights import (load, localizer_config, merged_state, our_name,
                            our_state, samples)

pytestmark = pytest.mark.parity

FEATURE, OUTPUT, GRID = 1e-4, 5e-5, 2e-4
STACK = 'backbone.blocks'


@pytest.fixture(scope='module')
def parts(golden):
    """(recorded part, configs) for both benchmarks."""
    MMLogger.get_instance('mmengine', log_level='ERROR')
    recorded = golden('pbd_detector.pt')
    configs = golden('pbd_detector_config.json')
    return [(recorded, configs),
            (recorded['anet_like'], configs['anet_like'])]


def alignments(config):
    """The published losses by their published names."""
    relation = dict(type='mmblockdrop.TokenRelationLoss')
    found = {
        'loss_out': dict(),
        'loss_mid': dict(submodule='norm2:input'),
        'loss_out_rel': dict(loss=relation),
        'loss_mid_rel': dict(submodule='norm2:input', loss=relation)
    }
    for cfg in found.values():
        cfg.update(type='mmblockdrop.PublishedBlockAlignment', stack=STACK)
    one_class = config['rpn_head']['num_classes'] == 1
    found['loss_cls_kd'] = dict(
        type='mmblockdrop.ClassAlignment',
        loss=dict(
            type='mmblockdrop.ClassKLLoss',
            temperature=config['temperature'],
            activation='sigmoid' if one_class else 'softmax'))
    found['loss_reg_kd'] = dict(
        type='mmblockdrop.SegmentAlignment',
        loss=dict(type='mmblockdrop.DIoULoss'))
    return found


def build(part, configs, drops, teacher_drops, tmp_path):
    """Student and teacher as published, in evaluation mode."""
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=localizer_config(configs['student'],
                                       part['inputs'].shape[3]),
            alignments=alignments(configs['student'])))
    stack = BlockStack(model.student, STACK)
    gone = tuple(f'{STACK}.{i}.' for i in teacher_drops)
    teacher = {
        k: v
        for k, v in merged_state(part).items() if not k.startswith(gone)
    }
    record = dict(
        stack=STACK, depth=len(stack), rounds=[dict(dropped=teacher_drops)])
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=teacher, meta=dict(blockdrop=record)), path)
    for index in drops:
        stack.remove(index)
    load(model.student, our_state(part['checkpoint']['state_dict']))
    model.set_teacher(str(path))
    return model.eval()


def cases(part):
    """(recorded training pass, blocks student lacks, blocks teacher lacks)"""
    for gold in part['student'].values():
        yield gold['train'], gold['drop_idx'], []
    if 'dynamic_teacher' in part:
        gold = part['dynamic_teacher']
        yield gold['train'], gold['student_drop_idx'], gold['teacher_drop_idx']


def batch(model, part):
    frames = model.data_preprocessor(
        dict(inputs=list(part['inputs']), data_samples=None))['inputs']
    return frames, samples(part)


def test_losses_in_evaluation_mode(parts, tmp_path):
    for part, configs in parts:
        for train, drops, teacher_drops in cases(part):
            model = build(part, configs, drops, teacher_drops, tmp_path)
            with torch.no_grad():
                losses = model(*batch(model, part), mode='loss')
            gold = train['losses_eval_mode']
            ours = {
                'cls_loss': losses.pop('loss_cls'),
                'reg_loss': losses.pop('loss_reg'),
                **{k[len('loss_align_'):]: v for k, v in losses.items()}
            }
            assert set(ours) == set(gold)
            for name, theirs in gold.items():
                if theirs == 0:  # a softmax over one class
                    assert name == 'loss_cls_kd' and ours[name] > 1e-4
                else:
                    assert ours[name].item() == pytest.approx(
                        theirs, rel=2e-5), name


def test_teacher_features_and_targets(parts, tmp_path):
    for part, configs in parts:
        gold = part['teacher']
        model = build(part, configs, [], [], tmp_path)
        depth = len(gold.get('feat_out_list', []))
        kept = {
            'out': [f'{STACK}.{i}' for i in range(depth)],
            'mid': [f'{STACK}.{i}.norm2:input' for i in range(depth)]
        }
        inputs, data = batch(model, part)
        with torch.no_grad(), record(model.teacher,
                                  kept['out'] + kept['mid']) as out:
            preds = model.teacher(inputs, data)
        for name, paths in kept.items():
            for i, path in enumerate(paths):
                close(out[path], gold[f'feat_{name}_list'][i], FEATURE)
        same_targets(model.teacher.head, preds, data, gold)


def test_targets_of_a_teacher_of_an_earlier_round(parts, tmp_path):
    for part, configs in parts:
        if 'dynamic_teacher' not in part:
            continue
        gold = part['dynamic_teacher']
        model = build(part, configs, gold['student_drop_idx'],
                      gold['teacher_drop_idx'], tmp_path)
        left = BlockStack(model.teacher, STACK).remaining
        assert left == [
            i for i, none in enumerate(gold['feat_out_is_none']) if not none
        ]
        inputs, data = batch(model, part)
        with torch.no_grad():
            preds = model.teacher(inputs, data)
        same_targets(model.teacher.head, preds, data, gold)


def same_targets(head, preds, data, gold):
    flat = head.flatten(preds)
    close(flat.cls_logits[flat.valid], gold['cls_target'], OUTPUT)
    positive = head.positives(preds, data)
    close(head.decode(preds)[0][positive], gold['reg_target'], GRID)


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_names_of_a_compressed_student(parts, tmp_path):
    for part, configs in parts:
        for gold in part['student'].values():
            if 'state_dict_keys' in gold:
                model = build(part, configs, gold['drop_idx'], [], tmp_path)
                assert set(model.state_dict()) == {
                    our_name(k, lora=True)
                    for k in gold['state_dict_keys']
                }
