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
def refused(block_drop, tmp_path):
    """Run a config that is refused; returns what is said."""

    def run(error, change=None, **overrides):
        cfg = block_drop(tmp_path, **overrides)
        if change is not None:
            change(cfg)
        with pytest.raises(error) as caught:
            train(cfg)
        assert not list(tmp_path.glob('*.pth'))
        return str(caught.value)

    return run


def test_wrong_stack(refused):
    hook = dict(type='mmblockdrop.BlockDropHook', stack='backbone.layers')
    message = refused(ValueError, custom_hooks=[hook])
    assert "stack='backbone.layers' is not a module" in message
    assert "Did you mean 'backbone.blocks'" in message
    assert f'backbone.blocks ({toy.DEPTH} blocks)' in message


def test_unknown_protected_block(refused):
    message = refused(ValueError, protect=[0, 9])
    assert 'train_cfg.protect names block 9' in message
    assert f'blocks 0 to {toy.DEPTH - 1}' in message


def test_block_that_is_protected_twice(refused):
    message = refused(ValueError, protect=[0, 2, 2])
    assert 'train_cfg.protect=[0, 2, 2] names block 2 twice' in message


def test_block_to_start_without_twice(refused):
    hook = dict(type='mmblockdrop.BlockDropHook', start_dropped=[1, 1])
    message = refused(ValueError, custom_hooks=[hook])
    assert 'BlockDropHook.start_dropped=[1, 1] names block 1 twice' in message


@pytest.mark.parametrize('path', [['backbone.blocks', 'backbone.blocks.1'],
                                  ['backbone.blocks.1', 'backbone.blocks.1']])
def test_block_that_is_in_the_stack_twice(refused, path):
    hook = dict(type='mmblockdrop.BlockDropHook', stack=path)
    message = refused(ValueError, custom_hooks=[hook])
    assert 'backbone.blocks.1' in message and 'twice' in message


def test_unknown_time_to_merge(refused):
    message = refused(ValueError, merge_lora='epoch')
    assert "train_cfg.merge_lora='epoch'" in message
    assert "['round', 'end']" in message


def test_unknown_block_to_start_without(refused):
    hook = dict(type='mmblockdrop.BlockDropHook', start_dropped=[7])
    message = refused(ValueError, custom_hooks=[hook])
    assert 'Block 7' in message and f'0 to {toy.DEPTH - 1}' in message


@pytest.mark.parametrize('drops,protect,most', [
    (4, [], 3),
    (0, [], 3),
    (3, [0, 1], 2),
    ('100%', [], 3),
    ('1%', [], 3),
])
def test_too_many_or_too_few_drops(refused, drops, protect, most):
    message = refused(ValueError, drops=drops, protect=protect)
    assert f'train_cfg.drops={drops!r}' in message
    assert f'possible are 1 to {most}' in message


def test_drops_in_words(refused):
    message = refused(ValueError, drops='half')
    assert "train_cfg.drops='half'" in message and "'25%'" in message


@pytest.mark.parametrize('drops,near', [(0.25, "'25%'"), (2.5, '2')])
def test_drops_that_are_no_number_of_blocks(refused, drops, near):
    message = refused(ValueError, drops=drops)
    assert f'train_cfg.drops={drops}' in message
    assert f'did you mean {near}?' in message


@pytest.mark.parametrize('key,value', [('drops_per_round', 0),
                                       ('drops_per_round', 1.5),
                                       ('epochs_per_round', -1)])
def test_impossible_budget(refused, key, value):
    assert f'{key}={value}' in refused(ValueError, **{key: value})


def test_more_drops_than_a_compressed_checkpoint_has_blocks(refused):
    hook = dict(type='mmblockdrop.BlockDropHook', start_dropped=[0, 2])
    message = refused(ValueError, drops=2, custom_hooks=[hook])
    assert 'train_cfg.drops means 2 blocks' in message
    assert '[0, 2]' in message and '[1, 3]' in message


def test_unknown_argument_names_the_nearest(refused):
    message = refused(ValueError, drop=2)
    assert "train_cfg has 'drop'" in message
    assert "Did you mean 'drops'?" in message


def test_what_is_left_of_the_inherited_loop(refused):
    message = refused(ValueError, max_epochs=9)
    assert "'max_epochs'" in message and '_delete_=True' in message


def test_no_hook(refused):
    message = refused(ValueError, custom_hooks=[])
    assert "type='mmblockdrop.BlockDropHook'" in message
    assert 'CheckpointHook' in message


def test_no_validation(refused):

    def without(cfg):
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None

    message = refused(ValueError, without)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        assert key in message


@pytest.mark.parametrize('overrides,key', [
    (dict(metric='tad/map'), 'train_cfg.metric'),
    (dict(scorer=dict(type='mmblockdrop.MetricScorer', metric='tad/map')),
     'train_cfg.scorer.metric'),
])
def test_unknown_metric(refused, overrides, key):
    message = refused(KeyError, **overrides)
    assert f"{key}='tad/map'" in message
    assert "'tad/mAP'" in message and "'tad/mAP@0.50'" in message
    assert "the nearest is 'tad/mAP'" in message


def test_empty_scoring_set(refused):

    def empty(cfg):
        cfg.train_cfg.score_dataloader.dataset.length = 0

    assert 'train_cfg.score_dataloader' in refused(ValueError, empty)


def test_unknown_scorer(refused):
    message = refused(KeyError, scorer=dict(type='mmblockdrop.MetricsScorer'))
    assert "train_cfg.scorer.type='mmblockdrop.MetricsScorer'" in message
    assert "did you mean 'mmblockdrop.MetricScorer'?" in message


def test_unknown_argument_of_a_scorer(refused):
    scorer = dict(type='mmblockdrop.MetricScorer', share_prefixes=True)
    message = refused(ValueError, scorer=scorer)
    assert "train_cfg.scorer has 'share_prefixes'" in message
    assert "Did you mean 'share_prefix'?" in message


def test_wrong_path_to_freeze(refused):
    message = refused(ValueError, frozen=['backbon'])
    assert "train_cfg.frozen names 'backbon'" in message
    assert "nearest is 'backbone'" in message


def test_wrong_lora_target(refused):
    message = refused(ValueError, lora=dict(rank=2, targets=['qvk']))
    assert 'qvk' in message and 'qkv' in message


def test_dynamic_teacher_without_a_teacher(refused, trained):

    def plain(cfg):
        cfg.model = toy.localizer()
        cfg.load_from = trained

    message = refused(ValueError, plain, dynamic_teacher=True)
    assert 'train_cfg.dynamic_teacher' in message
    assert 'TeacherStudentWrapper' in message and 'ActionFormer' in message


def test_wrong_alignment(refused):

    def wrong(cfg):
        cfg.model.alignments = dict(
            x=dict(type='mmblockdrop.ModuleAlignment', module='neks'))

    assert "Did you mean 'neck'" in refused(ValueError, wrong)


def test_missing_checkpoint(refused, trained):

    def wrong(cfg):
        cfg.model.checkpoint = trained.replace('epoch_3', 'epoch_33')

    message = refused(FileNotFoundError, wrong)
    assert 'model.checkpoint' in message and 'epoch_33.pth' in message
    assert "did you mean 'epoch_3.pth'" in message


def test_checkpoint_of_another_depth(refused):

    def deeper(cfg):
        cfg.model.localizer.backbone.depth = toy.DEPTH + 1

    message = refused(ValueError, deeper)
    assert 'model.checkpoint' in message and 'epoch_3.pth' in message
    assert f'missing: backbone.blocks.{toy.DEPTH}.' in message


def test_teacher_of_another_width(refused, trained, tmp_path):
    state, _ = read_weights(trained)
    name = 'backbone.blocks.1.mlp.layers.0.0.weight'
    state[name] = state[name][:, :8]
    path = tmp_path.parent / f'{tmp_path.name}_narrow.pt'
    torch.save(dict(state_dict=state, meta={}), path)

    def narrow(cfg):
        cfg.model.checkpoint = str(path)

    message = refused(ValueError, narrow)
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
    assert "meta['blockdrop']; this one has none" in str(error.value)


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
    with pytest.raises(ValueError, match="Did you mean 'backbone.blocks'"):
        runner_for(finished / 'round_1.pth', tmp_path,
               stack='backbone.block').test()


def test_a_stack_of_any_module_list():
    model = MODELS.build(toy.localizer())
    stack = BlockStack(model, ['backbone.blocks', 'projection.branch'])
    assert len(stack) == toy.DEPTH + 1
