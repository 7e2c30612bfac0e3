"""Optimizers, schedules and evaluated epochs beside the published ones."""
import copy

from mmblockdrop.registry import MODELS
from mmblockdrop.rounds.schedule import Phase, Validation

import pytest
import torch
from config_kit import FULL_SIZE, find, kind_of, localizer_of, read, shrink
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

SMALL = 'vit-small-p16-lora_'
THUMOS = find(f'configs/thumos14/blockdrop_{SMALL}')
DEEP = find('configs/thumos14/blockdrop_vit-large-p16-lora_')
ANET = find(f'configs/activitynet13/blockdrop_{SMALL}')


def rates(schedulers, base_lrs, per_epoch, iterations):
    """Learning rates that are used, iteration by iteration."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in base_lrs]
    optimizer = torch.optim.SGD(
        [dict(params=[w], lr=lr) for w, lr in zip(weights, base_lrs)])
    built = [
        PARAM_SCHEDULERS.build(
            dict(cfg),
            default_args=dict(optimizer=optimizer, epoch_length=per_epoch))
        for cfg in copy.deepcopy(schedulers)
    ]
    used = []
    for _ in range(iterations):
        used.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return torch.tensor(used, dtype=torch.float64)


@pytest.mark.parity
def test_parity_of_the_learning_rates(golden):
    """Warm-up and cosine, cut off or not, with any numbers of epochs."""
    warmup, cosine = read(THUMOS).param_scheduler
    for case in golden('training_rules.json')['lr_schedules']:
        warm = case['config']['warmup_epoch']
        schedulers = [
            dict(warmup, end=warm),
            dict(cosine, begin=warm, end=case['config']['max_epoch'])
        ]
        expected = torch.tensor(
            case['lr_used_at_iteration'], dtype=torch.float64)
        found = rates(schedulers, case['base_lrs'], case['iters_per_epoch'],
                      len(expected))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize('path,epochs,last', [
    (THUMOS, 60, 65),
    (DEEP, 60, 80),
    (ANET, 15, 15),
])
def test_length_of_the_schedules(path, epochs, last):
    cfg = read(path)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end) == (5, 5, last)
    assert cfg.train_cfg.epochs_per_round == epochs
    assert warmup.convert_to_iter_based and cosine.convert_to_iter_based
    assert cosine.eta_min == 1e-8


@pytest.mark.parity
def test_parity_of_the_evaluated_epochs(golden):
    """The epochs at which the published configs evaluate, from one."""
    recorded = golden('training_rules.json')['evaluated_epochs']
    cases = dict(
        thumos_s=read(THUMOS).train_cfg,
        thumos_l=read(DEEP).train_cfg,
        anet_s_full=read(ANET).train_cfg,
        anet_s_sub=read(ANET).train_cfg.subset)
    for name, cfg in cases.items():
        if name not in recorded:
            continue
        epochs = cfg.get('epochs', cfg.get('epochs_per_round'))
        phase = Phase(epochs, Validation(**cfg.validation))
        due = [e for e in range(1, epochs + 1) if phase.due(e)]
        assert due == [e + 1 for e in recorded[name]['zero_based_epochs']]


def group_of(name, parameter):
    """Rate and decay by the published rule, in units of the base values."""
    if name.startswith('backbone'):
        return 'encoder', 1.
    plain = parameter.ndim > 1 and not name.endswith('scale')
    norm = 'norm' in name or '.ln' in name
    return 'detector', 1. if plain and not norm else 0.


@pytest.mark.parametrize('path,detector,encoder', [
    (THUMOS, 1e-4, 1e-4),
    (ANET, 1e-3, 1e-4),
    ('thumos14-all-drop', 1e-4, 1e-5),
    ('activitynet13-all-drop', 1e-3, 1e-5),
    (find(f'configs/thumos14/actionformer_{SMALL}'), 1e-4, 5e-5),
    (find(f'configs/activitynet13/actionformer_{SMALL}'), 1e-3, 5e-5),
])
def test_rates_and_decay_of_all_parameters(tmp_path, path, detector, encoder):
    cfg = read(path)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.)
    model = MODELS.build(localizer_of(shrink(cfg, tmp_path)))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    found = {
        id(p): (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups for p in group['params']
    }
    rate = dict(encoder=encoder, detector=detector)
    counts = dict(encoder=0, detector=0)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in found, name
            continue
        part, decay = group_of(name, parameter)
        counts[part] += 1
        assert found[id(parameter)] == pytest.approx(
            (rate[part], 0.05 * decay)), name
    assert all(counts.values())


def test_averages_and_distillation_of_all_rounds():
    for path in FULL_SIZE:
        if 'blockdrop_' not in path:
            continue
        cfg = read(path)
        average = cfg.custom_hooks[1]
        assert average.momentum == pytest.approx(1 - 0.999)
        assert average.update_buffers
        anet = cfg.model.localizer.head.num_classes == 1
        assert ('student' in cfg.train_cfg) == anet
        assert not anet or cfg.train_cfg.student.dynamic_teacher
        cls = cfg.model.alignments.cls.loss
        assert cls.temperature == 3.5
        assert cls.get('activation', 'softmax') == (
            'sigmoid' if anet else 'softmax')
        assert cfg.model.alignments.seg.loss.type == 'mmblockdrop.DIoULoss'
        at_half = kind_of(path) == 'thumos14'
        metric = 'tad/mAP@0.50' if at_half else 'tad/mAP'
        assert cfg.train_cfg.metric == cfg.train_cfg.scorer.metric == metric
        assert 'protect' not in cfg.train_cfg
        assert cfg.train_cfg.lora.rank * 4 == (
            cfg.model.localizer.backbone.embed_dims)
