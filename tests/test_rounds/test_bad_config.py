"""What is wrong in a config is said before any work is done."""
import copy

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.runner import Runner
from rounds_kit import read_weights, sharpen, train


@pytest.fixture
def rejected(block_drop, tmp_path):
    """Run a config that is rejected; returns the error's text."""

    def run(error, change=None, **overrides):
        cfg = block_drop(tmp_path, **overrides)
        if change is not None:
            change(cfg)
        with pytest.raises(error) as caught:
            train(cfg)
        assert not list(tmp_path.glob('*.pth'))
        return str(caught.value)

    return run


def test_wrong_stack(rejected):
    hook = dict(type='mmblockdrop.BlockDropHook', stack='backbone.layers')
    message = rejected(ValueError, custom_hooks=[hook])
    assert "stack='backbone.layers' is not a module" in message
    assert "did you mean 'backbone.blocks'" in message
    assert f'backbone.blocks ({toy.DEPTH} blocks)' in message


def test_unknown_protected_block(rejected):
    message = rejected(ValueError, protect=[0, 9])
    assert 'train_cfg.protect names block 9' in message
    assert f'blocks 0 to {toy.DEPTH - 1}' in message


def test_block_that_is_protected_twice(rejected):
    message = rejected(ValueError, protect=[0, 2, 2])
    assert 'train_cfg.protect=[0, 2, 2]' in message


def test_block_to_start_without_twice(rejected):
    hook = dict(type='mmblockdrop.BlockDropHook', start_dropped=[1, 1])
    message = rejected(ValueError, custom_hooks=[hook])
    assert 'BlockDropHook.start_dropped=[1, 1]' in message


@pytest.mark.parametrize('path', [['backbone.blocks', 'backbone.blocks.1'],
                                  ['backbone.blocks.1', 'backbone.blocks.1']])
def test_block_that_is_in_the_stack_twice(rejected, path):
    hook = dict(type='mmblockdrop.BlockDropHook', stack=path)
    message = rejected(ValueError, custom_hooks=[hook])
    assert 'backbone.blocks.1' in message and 'twice' in message


def test_unknown_time_to_merge(rejected):
    message = rejected(ValueError, student=dict(merge_lora='epoch'))
    assert "train_cfg.student.merge_lora='epoch'" in message
    assert "'round', 'end'" in message


def test_unknown_block_to_start_without(rejected):
    hook = dict(type='mmblockdrop.BlockDropHook', start_dropped=[7])
    message = rejected(ValueError, custom_hooks=[hook])
    assert 'Block 7' in message and f'0 to {toy.DEPTH - 1}' in message


@pytest.mark.parametrize('drops,protect,most', [
    (4, [], 3),
    (0, [], 3),
    (3, [0, 1], 2),
    ('100%', [], 3),
    ('1%', [], 3),
])
def test_too_many_or_too_few_drops(rejected, drops, protect, most):
    message = rejected(ValueError, drops=drops, protect=protect)
    assert f'train_cfg.drops={drops!r}' in message
    assert f'1 to {most}' in message


def test_drops_in_words(rejected):
    message = rejected(ValueError, drops='half')
    assert "train_cfg.drops='half'" in message and "'25%'" in message


@pytest.mark.parametrize('drops,near', [(0.25, "'25%'"), (2.5, '2')])
def test_drops_that_are_no_number_of_blocks(rejected, drops, near):
    message = rejected(ValueError, drops=drops)
    assert f'train_cfg.drops={drops}' in message
    assert f'did you mean {near}?' in message


@pytest.mark.parametrize('key,value', [('drops_per_round', 0),
                                       ('drops_per_round', 1.5),
                                       ('epochs_per_round', -1)])
def test_impossible_budget(rejected, key, value):
    assert f'{key}={value}' in rejected(ValueError, **{key: value})


def test_more_drops_than_a_compressed_checkpoint_has_blocks(rejected):
    hook = dict(type='mmblockdrop.BlockDropHook', start_dropped=[0, 2])
    message = rejected(ValueError, drops=2, custom_hooks=[hook])
    assert 'train_cfg.drops means 2 blocks' in message
    assert '[0, 2]' in message and '[1, 3]' in message


def test_unknown_argument_names_the_nearest(rejected):
    message = rejected(ValueError, drop=2)
    assert 'train_cfg' in message and "'drop'" in message
    assert "did you mean 'drops'?" in message


@pytest.mark.parametrize('group,key,near', [
    ('student', 'freeze', 'frozen'), ('validation', 'start', 'begin'),
    ('validation', 'intervals', 'interval'), ('stop', 'tolerances',
                                              'tolerance'),
    ('student', 'lora', 'frozen')])
def test_unknown_key_of_a_group(rejected, group, key, near):
    message = rejected(ValueError, **{group: {key: 1}})
    assert f'train_cfg.{group}' in message
    assert repr(key) in message and repr(near) in message


def test_unknown_structure(rejected):
    hook = dict(type='mmblockdrop.BlockDropHook',
                structure='mmblockdrop.BlockStacks')
    message = rejected(ValueError, custom_hooks=[hook])
    assert 'BlockDropHook.structure' in message
    assert 'BlockStacks' in message
    assert "did you mean 'mmblockdrop.BlockStack'" in message


def test_what_is_left_of_the_inherited_loop(rejected):
    message = rejected(ValueError, max_epochs=9)
    assert "'max_epochs'" in message and '_delete_=True' in message


def test_no_hook(rejected):
    message = rejected(ValueError, custom_hooks=[])
    assert "type='mmblockdrop.BlockDropHook'" in message
    assert 'CheckpointHook' in message


def test_no_validation(rejected):

    def without(cfg):
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None

    message = rejected(ValueError, without)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        assert key in message


@pytest.mark.parametrize('overrides,key', [
    (dict(metric='tad/map'), 'train_cfg.metric'),
    (dict(scorer=dict(type='mmblockdrop.MetricScorer', metric='tad/map')),
     'train_cfg.scorer.metric'),
])
def test_unknown_metric(rejected, overrides, key):
    message = rejected(KeyError, **overrides)
    assert f"{key}='tad/map'" in message
    assert "'tad/mAP@0.50'" in message
    assert "did you mean 'tad/mAP'?" in message


def test_empty_scoring_set(rejected):

    def empty(cfg):
        cfg.train_cfg.score_dataloader.dataset.length = 0

    assert 'train_cfg.score_dataloader' in rejected(ValueError, empty)


def test_unknown_scorer(rejected):
    message = rejected(KeyError, scorer=dict(type='mmblockdrop.MetricsScorer'))
    assert "train_cfg.scorer.type='mmblockdrop.MetricsScorer'" in message
    assert "did you mean 'mmblockdrop.MetricScorer'?" in message


def test_unknown_argument_of_a_scorer(rejected):
    scorer = dict(type='mmblockdrop.MetricScorer', share_prefixes=True)
    message = rejected(ValueError, scorer=scorer)
    assert 'train_cfg.scorer' in message and "'share_prefixes'" in message
    assert "did you mean 'share_prefix'?" in message


@pytest.mark.parametrize('key,value', [
    ('criterion', 'metric'), ('corrected', False), ('bound', 'halving'),
    ('growth', 1), ('keep', 2), ('shortlist', 3), ('value_range', 1.)])
def test_removed_argument_of_the_race(rejected, key, value):
    scorer = {'type': 'mmblockdrop.RacingScorer', key: value}
    message = rejected(ValueError, scorer=scorer)
    assert 'train_cfg.scorer' in message and repr(key) in message
    for remaining in ('delta', 'first', 'seed'):
        assert repr(remaining) in message


def test_wrong_path_to_freeze(rejected):
    message = rejected(ValueError, student=dict(frozen=['backbon']))
    assert 'train_cfg.student.frozen' in message and "'backbon'" in message
    assert "did you mean 'backbone'?" in message


def test_wrong_lora_target(rejected):
    message = rejected(ValueError, lora=dict(rank=2, targets=['qvk']))
    assert 'qvk' in message and 'qkv' in message


def test_dynamic_teacher_without_a_teacher(rejected, trained):

    def plain(cfg):
        cfg.model = toy.localizer()
        cfg.load_from = trained

    message = rejected(
        ValueError, plain, student=dict(dynamic_teacher=True))
    assert 'train_cfg.student.dynamic_teacher=True' in message
    assert 'TeacherStudentWrapper' in message and 'ActionFormer' in message


def test_wrong_alignment(rejected):

    def wrong(cfg):
        cfg.model.alignments = dict(
            x=dict(type='mmblockdrop.ModuleAlignment', module='neks'))

    assert "did you mean 'neck'" in rejected(ValueError, wrong)


def test_missing_checkpoint(rejected, trained):

    def wrong(cfg):
        cfg.model.checkpoint = trained.replace('epoch_3', 'epoch_33')

    message = rejected(FileNotFoundError, wrong)
    assert 'model.checkpoint' in message and 'epoch_33.pth' in message
    assert "did you mean 'epoch_3.pth'" in message


def test_checkpoint_of_another_depth(rejected):

    def deeper(cfg):
        cfg.model.localizer.backbone.depth = toy.DEPTH + 1

    message = rejected(ValueError, deeper)
    assert 'model.checkpoint' in message and 'epoch_3.pth' in message
    assert f'missing: backbone.blocks.{toy.DEPTH}.' in message


def test_teacher_of_another_width(rejected, trained, tmp_path):
    state, _ = read_weights(trained)
    name = 'backbone.blocks.1.mlp.layers.0.0.weight'
    state[name] = state[name][:, :8]
    path = tmp_path.parent / f'{tmp_path.name}_narrow.pt'
    torch.save(dict(state_dict=state, meta={}), path)

    def narrow(cfg):
        cfg.model.checkpoint = str(path)

    message = rejected(ValueError, narrow)
    assert 'model.checkpoint' in message and str(path) in message
    assert f'{name} (64, 8) instead of (64, 16)' in message


def runner_for(checkpoint, tmp_path, depth=toy.DEPTH, stack='backbone.blocks'):
    """Runner that tests a checkpoint with a plain localizer."""
    cfg = sharpen(
        toy.config(
            tmp_path,
            model=toy.localizer(depth=depth),
            load_from=str(checkpoint),
            custom_hooks=[dict(type='mmblockdrop.BlockDropHook',
                               stack=stack)]))
    cfg.experiment_name = f'{tmp_path.name}_{depth}'
    return Runner.from_cfg(cfg)


@pytest.mark.parametrize('name,word', [
    ('round_1.pth', 'from a model with 4 blocks'),
    ('epoch_3.pth', 'from a model with 4 blocks'),
])
def test_compressed_checkpoint_in_a_deeper_model(finished, tmp_path, name,
                                                 word):
    with pytest.raises(ValueError, match=word + '.*builds 5'):
        runner_for(finished / name, tmp_path, depth=5).test()


@pytest.mark.parametrize('depth,word', [(5, 'missing: backbone.blocks.4'),
                                        (3, 'unexpected: backbone.blocks.3')])
def test_checkpoint_without_record_in_another_model(trained, tmp_path, depth,
                                                    word):
    state, _ = read_weights(trained)
    path = tmp_path / 'bare.pth'
    torch.save(dict(state_dict=state, meta={}), path)
    with pytest.raises(ValueError) as error:
        runner_for(path, tmp_path, depth=depth).test()
    assert word in str(error.value)
    assert 'no record of a compression' in str(error.value)


def test_checkpoint_of_another_width(trained, tmp_path):
    state, _ = read_weights(trained)
    state = copy.deepcopy(state)
    name = 'backbone.blocks.1.mlp.layers.0.0.weight'
    state[name] = state[name][:, :8]
    path = tmp_path / 'narrow.pth'
    torch.save(dict(state_dict=state, meta={}), path)
    with pytest.raises(ValueError) as error:
        runner_for(path, tmp_path).test()
    assert name in str(error.value) and '(64, 8)' in str(error.value)


def test_wrong_stack_in_testing(finished, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'backbone.blocks'"):
        runner_for(finished / 'round_1.pth', tmp_path,
               stack='backbone.block').test()


def test_a_stack_of_any_module_list():
    model = MODELS.build(toy.localizer())
    stack = BlockStack(model, ['backbone.blocks', 'projection.branch'])
    assert len(stack) == toy.DEPTH + 1
