"""Runs with other rules, other budgets and other starts."""
import json

from mmblockdrop.compression import BlockStack
from mmblockdrop.evaluation import TADMetric
from mmblockdrop.registry import METRICS, SCORERS
from mmblockdrop.scorers import MetricScorer

import pytest
import torch
import toy
from mmengine.runner import Runner
from rounds_kit import blocks_in, metric_of, read_record, read_weights, train

pytestmark = pytest.mark.usefixtures('unmeasured')


@pytest.mark.parametrize('kind', [
    'LossScorer', 'BlockChangeScorer', 'RandomScorer',
])
def test_other_rules(block_drop, tmp_path, kind):
    cfg = block_drop(
        tmp_path,
        drops='50%',
        epochs_per_round=1,
        scorer=dict(type=f'mmblockdrop.{kind}'))
    train(cfg)
    record = read_record(tmp_path)
    assert len(record['rounds']) == 2
    first = record['rounds'][0]
    sign = 1 if first['higher_is_better'] else -1
    scores = {int(k): sign * v for k, v in first['scores'].items()}
    assert first['criterion'] == kind
    assert first['dropped'] == [max(scores, key=lambda i: (scores[i], -i))]
    assert first['higher_is_better'] == (kind == 'RandomScorer')


def test_two_blocks_at_once(block_drop, tmp_path):
    train(block_drop(tmp_path, drops=3, drops_per_round=2,
                     epochs_per_round=1))
    first, second = read_record(tmp_path)['rounds']
    scores = {int(k): v for k, v in first['scores'].items()}
    assert first['dropped'] == sorted(
        scores, key=lambda i: (-scores[i], i))[:2]
    assert len(second['dropped']) == 1 and len(second['blocks_left']) == 1
    state, _ = read_weights(tmp_path / 'round_2.pth')
    assert blocks_in(state) == second['blocks_left']


def test_drop_without_training(block_drop, tmp_path, trained):
    runner = train(block_drop(tmp_path, epochs_per_round=0))
    start = read_weights(trained)[0]
    rounds = read_record(tmp_path)['rounds']
    for entry in rounds:
        assert entry['metric_after'] == entry['metric_before']
        assert entry['best_epoch'] == 0
    state, _ = read_weights(tmp_path / 'round_2.pth')
    assert blocks_in(state) == rounds[-1]['blocks_left']
    for name, value in state.items():
        torch.testing.assert_close(value, start[name])
    assert runner.iter == 0
    assert not list(tmp_path.glob('epoch_*.pth'))


def test_protected_blocks_stay(block_drop, tmp_path, finished):
    protect = read_record(finished)['rounds'][0]['dropped']
    train(block_drop(tmp_path, protect=protect, epochs_per_round=0))
    for entry in read_record(tmp_path)['rounds']:
        assert str(protect[0]) not in entry['scores']
        assert entry['dropped'] != protect
        assert protect[0] in entry['blocks_left']


def test_teacher_of_the_round_before(block_drop, tmp_path):
    runner = train(
        block_drop(tmp_path, epochs_per_round=1,
            student=dict(dynamic_teacher=True)))
    teacher = runner.model.teacher
    assert BlockStack(teacher, 'backbone.blocks').remaining == read_record(
        tmp_path)['rounds'][0]['blocks_left']
    merged, _ = read_weights(tmp_path / 'round_1.pth')
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, merged[name]), name


def test_start_from_a_compressed_checkpoint(finished, block_drop, tmp_path):
    cfg = block_drop(tmp_path, drops=1, epochs_per_round=1)
    cfg.model.checkpoint = str(finished / 'round_1.pth')
    train(cfg)
    before = read_record(finished)['rounds'][0]
    record = read_record(tmp_path)
    assert record['start_dropped'] == before['dropped']
    assert record['baseline']['blocks_left'] == before['blocks_left']
    assert record['baseline']['metric'] == pytest.approx(
        before['metric_after'], abs=1e-6)
    entry, = record['rounds']
    assert sorted(map(int, entry['scores'])) == before['blocks_left']
    state, meta = read_weights(tmp_path / 'round_1.pth')
    assert blocks_in(state) == entry['blocks_left']
    assert len(entry['blocks_left']) == toy.DEPTH - 2
    dropped = before['dropped'] + entry['dropped']
    assert metric_of(state, cfg, dropped) == pytest.approx(
        entry['metric_after'], abs=1e-6)


def test_plain_localizer_with_ground_truth_only(block_drop, tmp_path,
                                                trained):
    """Any localizer can be shortened without teacher and wrapper."""
    cfg = block_drop(tmp_path, drops=1, epochs_per_round=1, lora=None)
    cfg.model = toy.localizer()
    cfg.load_from = trained
    train(cfg)
    record = read_record(tmp_path)
    entry, = record['rounds']
    state, _ = read_weights(tmp_path / 'round_1.pth')
    assert blocks_in(state) == entry['blocks_left']
    assert entry['metric_after'] > 0


def test_averaged_weights_are_evaluated_and_kept(block_drop, tmp_path):
    """With ``EMAHook`` the best epoch is one of the averaged weights."""
    ema = [
        dict(type='mmblockdrop.BlockDropHook'),
        dict(type='EMAHook', momentum=0.3)
    ]
    cfg = block_drop(tmp_path, custom_hooks=ema)
    runner = train(cfg)
    assert BlockStack(runner.model.teacher,
                      'backbone.blocks').remaining == list(range(toy.DEPTH))
    rounds = read_record(tmp_path)['rounds']
    for entry in rounds:
        state, _ = read_weights(tmp_path / entry['checkpoint'])
        dropped = sorted(set(range(toy.DEPTH)) - set(entry['blocks_left']))
        assert metric_of(state, cfg, dropped) == pytest.approx(
            entry['metric_after'], abs=1e-6)
    content = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)
    average, live = content['state_dict'], content['ema_state_dict']
    assert live['steps'] == 4
    lora = [k for k in average if 'lora_B' in k]
    assert lora and all(
        not torch.equal(average[k], live[f'module.{k}']) for k in lora)


def test_epochs_that_are_evaluated(block_drop, tmp_path):
    cfg = block_drop(
        tmp_path,
        drops=1,
        epochs_per_round=4,
        validation=dict(begin=2, interval=3))
    runner = train(cfg)
    content = torch.load(tmp_path / 'epoch_4.pth', weights_only=False)
    entry = content['meta']['blockdrop']['rounds'][0]
    assert list(entry['epochs']) == ['0', '3']
    epochs = read_record(tmp_path)['rounds'][0]['epochs']
    assert list(epochs) == ['0', '3', '4']
    assert runner.epoch == 4


def test_arguments_of_earlier_versions(block_drop, tmp_path):
    """Flat ones mean what they meant, also over a group that is inherited."""
    flat = dict(
        val_begin=2, val_interval=3, dynamic_intervals=[(4, 1)],
        tolerance=0.5, budget=dict(params='50%'), frozen=['neck'],
        trainable=['norm'], merge_lora='end', dynamic_teacher=True,
        keep_scores_every=5.,
        scorer=dict(type='mmblockdrop.LossScorer', cache_mb=64))
    subset = dict(ratio=0.5, val_begin=3, validation=dict(interval=2))
    grouped = dict(
        student=dict(frozen=['neck'], trainable=['norm'], merge_lora='end',
                     dynamic_teacher=True),
        validation=dict(begin=2, interval=3, dynamic_intervals=[(4, 1)]),
        stop=dict(tolerance=0.5, budget=dict(params='50%')),
        scorer=dict(type='mmblockdrop.LossScorer'))
    found = []
    for name, settings in dict(
            flat=dict(flat, subset=subset),
            over=dict(flat, subset=subset, validation=dict(interval=9)),
            grouped=dict(grouped, subset=dict(
                ratio=0.5, validation=dict(begin=3, interval=2)))).items():
        cfg = block_drop(tmp_path, **settings)
        cfg.experiment_name = f'{name}_{tmp_path.name}'
        loop = Runner.from_cfg(cfg).train_loop
        student, phases = loop.student, loop.schedule.phases
        found.append((
            student.frozen, student.trainable, student.merges_rounds,
            student.dynamic_teacher, loop.stopping.tolerance,
            loop.stopping.budget, loop.scoring.cfg,
            [phase.validation for phase in phases]))
    assert found[0] == found[1] == found[2]
    assert found[0][-1][1].begin == 3 and found[0][-1][0].interval == 3


def test_lower_can_be_better(block_drop, tmp_path):
    cfg = block_drop(
        tmp_path, drops=1, epochs_per_round=3, higher_is_better=False)
    cfg.optim_wrapper.optimizer.lr = 0.05
    train(cfg)
    entry, = read_record(tmp_path)['rounds']
    content = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)
    seen = content['meta']['blockdrop']['rounds'][0]['epochs']
    assert set(seen) < set(entry['epochs'])
    assert entry['metric_after'] == min(entry['epochs'].values())
    assert entry['metric_after'] < entry['metric_before']


class Undecided(MetricScorer):
    """Blocks 1 and 2 alike, the others worse."""

    def __call__(self, context):
        return {i: float(i in (1, 2)) for i in context.candidates}


class NotFinite(MetricScorer):
    """Block 2 has no score."""

    def __call__(self, context):
        return {i: float('nan' if i == 2 else i) for i in context.candidates}


def test_a_score_that_is_not_finite_is_named(block_drop, tmp_path,
                                             monkeypatch):
    monkeypatch.setitem(SCORERS.module_dict, 'NotFinite', NotFinite)
    with pytest.raises(ValueError, match='Block 2 .*NotFinite=nan'):
        train(
            block_drop(tmp_path, scorer=dict(type='mmblockdrop.NotFinite')))
    assert not list(tmp_path.glob('round_*.pth'))


class Strange(TADMetric):
    """Gives one metric as it is told."""

    def __init__(self, key, value, **kwargs):
        super().__init__(**kwargs)
        self.key, self.value = key, value

    def compute_metrics(self, results):
        return {**super().compute_metrics(results), self.key: self.value}


@pytest.mark.parametrize('value', [float('nan'), float('-inf'), None, 'high'])
def test_a_metric_that_is_not_finite_is_named(block_drop, tmp_path,
                                              monkeypatch, value):
    monkeypatch.setitem(METRICS.module_dict, 'Strange', Strange)
    cfg = block_drop(tmp_path)
    cfg.val_evaluator = dict(
        type='mmblockdrop.Strange', key='mAP', value=value)
    with pytest.raises(ValueError, match=f'tad/mAP={value!r}'):
        train(cfg)
    assert not list(tmp_path.glob('round_*.pth'))


@pytest.mark.parametrize('value', [float('nan'), [float('inf')],
                                   torch.tensor(2.)])
def test_other_metrics_may_be_anything(block_drop, tmp_path, monkeypatch,
                                       value):
    monkeypatch.setitem(METRICS.module_dict, 'Strange', Strange)
    cfg = block_drop(tmp_path, drops=1, epochs_per_round=0)
    cfg.val_evaluator = dict(
        type='mmblockdrop.Strange', key='other', value=value)
    train(cfg)
    found = json.loads(
        (tmp_path / 'blockdrop.json').read_text(), parse_constant=pytest.fail)
    expected = {str(float('nan')): None, '[inf]': [None]}
    assert found['baseline']['metrics']['tad/other'] == expected.get(
        str(value), 2.)


@pytest.mark.parametrize('drops, named', [(1, True), (2, False)])
def test_scores_that_tell_nothing_are_reported(block_drop, tmp_path,
                                               monkeypatch, drops, named):
    monkeypatch.setitem(SCORERS.module_dict, 'Undecided', Undecided)
    cfg = block_drop(
        tmp_path,
        drops=drops,
        drops_per_round=drops,
        epochs_per_round=0,
        scorer=dict(type='mmblockdrop.Undecided'))
    cfg.log_level = 'WARNING'
    train(cfg)
    log = next(tmp_path.rglob('*.log')).read_text()
    assert ('cannot tell the blocks [1, 2] apart' in log) == named
    assert read_record(tmp_path)['rounds'][0]['dropped'] == [1, 2][:drops]
