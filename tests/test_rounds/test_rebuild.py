"""What is trained after surgery, how fast, and what follows it."""
from mmblockdrop.compression import BlockStack, add_lora
from mmblockdrop.registry import MODELS
from mmblockdrop.rounds.rebuild import localizer_of, plain_model
from mmblockdrop.rounds.student import PUBLISHED_TRAINABLE, freeze_except

import pytest
import torch
import toy
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import (CosineAnnealingLR, LinearLR, OptimWrapper,
                            build_optim_wrapper)
from parity_weights import localizer_config, our_name
from rounds_kit import train
from torch import nn

pytestmark = pytest.mark.usefixtures('unmeasured')


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def localizer():
    model = MODELS.build(toy.localizer())
    add_lora(model.backbone.blocks, rank=2)
    return model


def test_published_choice_of_what_is_trained(localizer):
    count = freeze_except(localizer, ['backbone'], PUBLISHED_TRAINABLE)
    trained = trained_names(localizer)
    assert count == sum(p.numel() for n, p in localizer.named_parameters()
                        if n in trained)
    for name, _ in localizer.named_parameters():
        outside = not name.startswith('backbone.')
        chosen = any(x in name for x in ('lora_', 'norm', 'patch_embed'))
        assert (name in trained) == (outside or chosen), name


def test_a_part_can_be_frozen_altogether(localizer):
    freeze_except(localizer, ['backbone', 'head.cls_head'], [])
    assert not any(
        n.startswith(('backbone.', 'head.cls_head')) or 'lora' in n
        for n in trained_names(localizer))
    freeze_except(localizer, [], [])
    assert len(trained_names(localizer)) == len(
        list(localizer.named_parameters()))


def test_what_the_localizer_froze_itself_stays_frozen(localizer):
    fixed = {'backbone.fc_norm.weight', 'neck.fpn_norms.0.weight'}
    freeze_except(localizer, ['backbone'], PUBLISHED_TRAINABLE, fixed)
    assert not fixed & trained_names(localizer)


def test_the_localizer_inside_whatever_wraps_it(trained):
    wrapper = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=toy.localizer(),
            checkpoint=trained))
    assert localizer_of(wrapper) is wrapper.student
    assert localizer_of(wrapper.student) is wrapper.student
    assert plain_model(wrapper) is wrapper


def test_every_round_has_its_own_optimizer_and_schedule(block_drop, tmp_path):
    cfg = block_drop(tmp_path)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
        dict(
            type='CosineAnnealingLR',
            begin=1,
            by_epoch=True,
            convert_to_iter_based=True)
    ]
    runner = train(cfg)
    rates = runner.message_hub.get_scalar('train/lr').data[0]
    first, second = rates[:8], rates[8:]
    assert len(second) == 8
    assert second == pytest.approx(first)
    base = cfg.optim_wrapper.optimizer.lr
    assert first[0] == pytest.approx(0.1 * base)
    assert first[4] == pytest.approx(base) and 0 < first[7] < 0.2 * base
    optimizer = {
        id(p)
        for group in runner.optim_wrapper.param_groups for p in group['params']
    }
    assert optimizer == {id(p) for p in runner.model.parameters()}
    assert not runner.optim_wrapper.optimizer.state


@pytest.mark.parity
def test_trained_parameters_as_published(golden):
    part = golden('pbd_detector.pt')
    config = golden('pbd_detector_config.json')['student']
    for gold in part['student'].values():
        model = MODELS.build(
            localizer_config(config, part['inputs'].shape[3],
                             gold['drop_idx']))
        freeze_except(model, ['backbone'], PUBLISHED_TRAINABLE)
        assert trained_names(model) == {
            our_name(name, lora=True)
            for name in gold['train']['requires_grad_after_forward']
        }


def published_optimizer(config):
    """The published groups as an ``optim_wrapper`` of MMEngine.

    The longest key that fits a name decides, so that the encoder's keys
    come before those of the detector.
    """
    base = {k: config[k] for k in ('type', 'lr', 'weight_decay')}
    special = {
        entry['name']: dict(
            lr_mult=entry['lr'] / base['lr'],
            decay_mult=entry['weight_decay'] / base['weight_decay'])
        for entry in config['backbone']['custom']
    }
    free = dict(decay_mult=0.)
    keys = {
        'lora_A.default': special['lora'],
        'lora_B.default': special['lora'],
        'patch_embed': special['patch_embed'],
        'backbone': special['norm'],  # what else is trained there
        'norm': free,
        'ln1': free,
        'ln2': free,
        'scale': free,
    }
    return dict(
        optimizer=base,
        paramwise_cfg=dict(custom_keys=keys, bias_decay_mult=0.))


@pytest.mark.parity
def test_optimizer_groups_as_published(golden):
    rules = golden('training_rules.json')['optimizer_groups']
    part = golden('pbd_detector.pt')
    config = golden('pbd_detector_config.json')['student']
    model = MODELS.build(
        localizer_config(config, part['inputs'].shape[3], rules['drop_idx']))
    freeze_except(model, ['backbone'], PUBLISHED_TRAINABLE)
    optimizer = build_optim_wrapper(
        model, published_optimizer(rules['config'])).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    ours = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups for p in group['params']
        if p.requires_grad
    }
    theirs = {
        our_name(name, lora=True): (group['lr'], group['weight_decay'])
        for group in rules['groups'] for name in group['names']
    }
    assert ours.keys() == theirs.keys()
    for name, settings in theirs.items():
        assert ours[name] == pytest.approx(settings), name
    frozen = {our_name(n, lora=True) for n in rules['not_in_any_group']}
    assert not frozen & ours.keys()
    assert frozen <= set(names.values()) | {
        n for n, _ in model.named_buffers()
    }


@pytest.mark.parity
def test_learning_rates_as_published(golden):
    for case in golden('training_rules.json')['lr_schedules']:
        groups = [
            dict(params=[nn.Parameter(torch.zeros(1))], lr=lr)
            for lr in case['base_lrs']
        ]
        optimizer = OptimWrapper(torch.optim.AdamW(groups))
        per_epoch, config = case['iters_per_epoch'], case['config']
        warm, last = (
            config[k] * per_epoch for k in ('warmup_epoch', 'max_epoch'))
        schedulers = [
            LinearLR(
                optimizer, 1e-9, begin=0, end=warm, by_epoch=False),
            CosineAnnealingLR(
                optimizer,
                T_max=last - warm,
                eta_min=1e-8,
                begin=warm,
                end=last,
                by_epoch=False)
        ]
        for wanted in case['lr_used_at_iteration']:
            used = [g['lr'] for g in optimizer.optimizer.param_groups]
            assert used == pytest.approx(wanted, rel=1e-5, abs=1e-11)
            optimizer.optimizer.step()
            for scheduler in schedulers:
                scheduler.step()


class Averaged(nn.Module):
    """Module of the recorded averaging."""

    def __init__(self, state) -> None:
        super().__init__()
        out, inside = torch.tensor(state['lin.weight']).shape
        self.lin = nn.Linear(inside, out)
        self.register_buffer('pos', torch.tensor(state['pos']))
        self.register_buffer('loss_normalizer',
                             torch.tensor(float(state['loss_normalizer'])))
        self.load_state_dict({k: torch.tensor(v) for k, v in state.items()})


@pytest.mark.parity
def test_averaging_as_published(golden):
    rules = golden('training_rules.json')['ema']
    steps = rules['steps']
    first = Averaged(steps[0]['ema'])
    average = ExponentialMovingAverage(
        first, momentum=1 - rules['decay'], update_buffers=True)
    average.update_parameters(first)
    kept = float(first.loss_normalizer)
    for step in steps[1:]:
        average.update_parameters(Averaged(step['model']))
        ours = average.module.state_dict()
        for name in ('lin.weight', 'lin.bias', 'pos'):
            torch.testing.assert_close(
                ours[name], torch.tensor(step['ema'][name]))
        # Published: truncated to a whole number at every step.
        kept += (1 - rules['decay']) * (
            step['model']['loss_normalizer'] - kept)
        assert ours['loss_normalizer'].item() == pytest.approx(kept)
        assert step['ema']['loss_normalizer'] < kept


@pytest.mark.parity
def test_candidates_as_published(golden):
    cases = golden('training_rules.json')['candidates']
    depth = max(len(case['candidates']) for case in cases)
    for case in cases:
        model = nn.Module()
        model.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(depth))
        stack = BlockStack(model, 'blocks')
        for index in case['drop_idx']:
            stack.remove(index)
        assert stack.remaining == [c[-1] for c in case['candidates']]


def test_averaging_restarts_with_the_round(block_drop, tmp_path):
    cfg = block_drop(tmp_path, epochs_per_round=1)
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.5))
    runner = train(cfg)
    hook, = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    assert hook.src_model is runner.model
    assert hook.ema_model.steps == 0
    assert hook.ema_model.module.teacher is runner.model.teacher
    state, own = hook.ema_model.module.state_dict(), runner.model.state_dict()
    assert list(state) == list(own)
    assert all(torch.equal(state[k], own[k]) for k in own)
    steps = torch.load(
        tmp_path / 'epoch_2.pth', weights_only=False)['ema_state_dict']
    assert steps['steps'] == 4
