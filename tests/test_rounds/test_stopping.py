"""Runs that stop by themselves."""
import json

from mmblockdrop.compression import BlockStack, removed_ids
from mmblockdrop.report import round_table
from mmblockdrop.rounds.stopping import Stopping, count_drops

import pytest
import torch
import toy
from rounds_kit import blocks_in, count_only, read_record, read_weights, train

FULL = dict(params=1000, macs=2000, paper_macs=1500, latency_ms=10.)


def record(*rounds, **baseline):
    """Record of rounds given as (metric after, cost)."""
    return dict(
        metric='tad/mAP',
        baseline=dict(dict(metric=0.6, **FULL), **baseline),
        rounds=[
            dict(round=i, metric_after=metric, **dict(FULL, **cost))
            for i, (metric, cost) in enumerate(rounds, 1)
        ])


@pytest.mark.parametrize('after,stops', [(0.62, False), (0.58, False),
                                         (0.5799, True)])
def test_tolerance_is_counted_from_the_teacher(after, stops):
    found = Stopping(tolerance=0.02).verdict(record((0.7, {}), (after, {})))
    assert (found is not None) == stops
    if stops:
        assert found['reason'] == 'tolerance' and found['round'] == 2
        assert '0.5799' in found['text'] and '0.6' in found['text']


def test_tolerance_where_lower_is_better():
    rule = Stopping(tolerance=0.02, higher_is_better=False)
    assert rule.verdict(record((0.5, {}))) is None
    assert rule.verdict(record((0.63, {})))['reason'] == 'tolerance'


def test_teacher_that_has_more_blocks_than_the_start():
    seen = record((0.58, {}), teacher_metric=0.65)
    assert Stopping(tolerance=0.05).verdict(seen)['reason'] == 'tolerance'
    assert Stopping(tolerance=0.08).verdict(seen) is None


@pytest.mark.parametrize('budget,macs,params,met', [
    (dict(macs=1500), 1500, 900, True),
    (dict(macs=1500), 1501, 900, False),
    (dict(macs='75%'), 1500, 900, True),
    (dict(macs='75%', params='80%'), 1500, 900, False),
    (dict(macs='75%', params='90%'), 1500, 900, True),
])
def test_budget(budget, macs, params, met):
    seen = record((0.6, dict(macs=1800)), (0.6, dict(macs=macs,
                                                     params=params)))
    found = Stopping(budget=budget).verdict(seen)
    assert (found is not None) == met
    if met:
        assert found['reason'] == 'budget' and found['round'] == 2


@pytest.mark.parametrize('budget,met', [
    ('75%', True), ('74%', False), (7.5, True), (7.4, False)])
def test_latency_is_judged_by_its_ratio(budget, met):
    """A machine that has become busy meanwhile changes nothing."""
    slow = dict(latency_ms=30., latency_ratio=0.75)
    rule = Stopping(budget=dict(latency_ms=budget))
    seen = record((0.6, slow), latency_ratio=1.)
    assert (rule.verdict(seen) is not None) == met
    if met:
        assert '7.5 of 7.5' in rule.verdict(seen)['text']
    else:
        assert '7.5 of 7.4' in rule.spent(seen, 1)['text']


def test_latency_of_records_without_a_ratio():
    rule = Stopping(budget=dict(latency_ms='75%'))
    assert rule.verdict(record((0.6, dict(latency_ms=7.5))))
    assert not rule.verdict(record((0.6, dict(latency_ms=7.6))))


def test_share_of_the_full_model_after_blocks_were_gone():
    seen = record((0.6, dict(macs=1500)))
    seen['full'] = dict(FULL, macs=4000)
    assert Stopping(budget=dict(macs='50%')).limits(seen) == dict(macs=2000.)
    assert Stopping(budget=dict(macs='50%')).verdict(seen) is not None


def test_nothing_stops_before_the_first_round():
    rule = Stopping(tolerance=0., budget=dict(macs=1))
    assert rule.verdict(record()) is None
    assert rule.given and not Stopping().given


@pytest.mark.parametrize('settings,words', [
    (dict(tolerance=-0.1), ['train_cfg.stop.tolerance=-0.1']),
    (dict(budget=dict(mac=5)),
     ['train_cfg.stop.budget', "'mac'", "did you mean 'macs'"]),
    (dict(budget=dict(macs='half')), ["budget['macs']='half'", "'75%'"]),
    (dict(budget=dict(macs='x%')), ["budget['macs']='x%'"]),
    (dict(budget=dict(params=0)), ["budget['params']=0", 'positive']),
])
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(ValueError) as error:
        Stopping(**settings)
    for word in words:
        assert word in str(error.value)


def test_drops_may_be_left_out_with_a_rule():
    assert count_drops(None, 12, 0, bounded=True) == 11
    assert count_drops(None, 12, 3, bounded=True) == 9
    with pytest.raises(ValueError, match='train_cfg.drops is missing'):
        count_drops(None, 12, 0)


def test_budget_that_is_met_at_once(block_drop, tmp_path):
    with pytest.raises(ValueError) as error:
        train(
            block_drop(
                tmp_path, drops=None, stop=dict(budget=dict(macs='100%'))))
    assert "train_cfg.stop.budget={'macs': '100%'}" in str(error.value)
    assert not list(tmp_path.glob('*.pth'))


def test_stop_at_a_budget(block_drop, tmp_path):
    train(
        block_drop(
            tmp_path,
            drops=None,
            epochs_per_round=0,
            stop=dict(budget=dict(params='90%', macs='90%'))))
    found = read_record(tmp_path)
    assert found['finished'] and found['stopped']['reason'] == 'budget'
    *before, last = [found['baseline'], *found['rounds']]
    limits = {k: 0.9 * found['baseline'][k] for k in ('params', 'macs')}
    assert all(last[k] <= limits[k] for k in limits)
    assert all(any(entry[k] > limits[k] for k in limits) for entry in before)
    assert found['result'] == last['checkpoint']
    page = (tmp_path / 'blockdrop.md').read_text()
    assert 'meets the budget' in page and found['result'] in page


@pytest.fixture(scope='module')
def quick():
    """No measuring."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmblockdrop.rounds.evaluator.measure', count_only)
        yield


@pytest.fixture(scope='module')
def fallen(block_drop, tmp_path_factory, quick):
    """A run in which a round is worse than all before it."""
    cfg = block_drop(
        tmp_path_factory.mktemp('fallen'),
        drops=3,
        drops_per_round=1,
        epochs_per_round=0,
        scorer=dict(type='mmblockdrop.RandomScorer', seed=3))
    train(cfg)
    whole = read_record(cfg.work_dir)
    metric = whole['baseline']['metric']
    falls = [metric - r['metric_after'] for r in whole['rounds']]
    # the first round that is worse than all before, and the gap before it
    worst = max(range(3), key=lambda i: falls[i])
    above = max([0., *falls[:worst]])
    assert falls[worst] > above
    return whole, worst, (above + falls[worst]) / 2


def test_fall_back_to_the_last_good_round(fallen, block_drop, tmp_path):
    whole, worst, tolerance = fallen
    runner = train(
        block_drop(
            tmp_path,
            drops=None,
            epochs_per_round=0,
            stop=dict(tolerance=tolerance),
            scorer=dict(type='mmblockdrop.RandomScorer', seed=3)))
    found = read_record(tmp_path)
    assert [r['state'] for r in found['rounds']
            ] == ['aligned'] * worst + ['rejected']
    assert found['stopped']['reason'] == 'tolerance'
    assert found['stopped']['round'] == worst + 1
    assert found['result'] == f'round_{worst}.pth'
    left = BlockStack(runner.model.student, 'backbone.blocks').remaining
    wanted = whole['rounds'][worst - 1]['blocks_left'] if worst else list(
        range(toy.DEPTH))
    assert left == wanted
    state, meta = read_weights(tmp_path / found['result'])
    assert blocks_in(state) == wanted
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert sorted(removed_ids(found)) == sorted(
        set(range(toy.DEPTH)) - set(wanted))
    assert sorted(removed_ids(meta['blockdrop'])) == sorted(
        removed_ids(found))
    assert f'{worst + 1} (rolled back)' in round_table(found)
    assert 'is rolled back' in (tmp_path / 'blockdrop.md').read_text()


def test_resumed_run_stops_as_before(fallen, block_drop, tmp_path):
    """Killed between the record of the bad round and the way back."""
    _, worst, tolerance = fallen
    settings = dict(
        drops=None,
        epochs_per_round=0,
        tolerance=tolerance,
        scorer=dict(type='mmblockdrop.RandomScorer', seed=3))
    train(block_drop(tmp_path, **settings))
    found = read_record(tmp_path)
    again = dict(found, rounds=[dict(r) for r in found['rounds']])
    again['rounds'][-1]['state'] = 'aligned'
    for key in ('finished', 'stopped', 'result'):
        del again[key]
    (tmp_path / 'blockdrop.json').write_text(json.dumps(again))
    runner = train(block_drop(tmp_path, resume=True, **settings))
    assert read_record(tmp_path) == found
    assert runner.model.student is not None
    left = BlockStack(runner.model.student, 'backbone.blocks').remaining
    assert len(left) == toy.DEPTH - worst
