"""Rounds on a subset of the data by a schedule of their own."""
from mmblockdrop.rounds.schedule import (EpochSubset, Phase, Validation,
                                         on_subset)

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rounds_kit import read_record
from toy import ToyVideos

pytestmark = pytest.mark.usefixtures('unmeasured')


class Recorder(Hook):
    """Notes what every epoch is trained on."""

    def __init__(self):
        self.epochs = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Note samples and learning rate of an iteration."""
        if batch_idx == 0:
            self.epochs.append(dict(videos=[], rates=[]))
        self.epochs[-1]['videos'] += [
            s.video_name for s in data_batch['data_samples']
        ]
        self.epochs[-1]['rates'].append(
            runner.optim_wrapper.get_lr()['lr'][0])


def record(cfg):
    """Train; return the runner, and what every epoch was trained on."""
    cfg.experiment_name = f'record_{id(cfg)}'
    runner, recorder = Runner.from_cfg(cfg), Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder.epochs


def test_first_half_on_a_subset(block_drop, tmp_path):
    """Three rounds: one epoch on half of the data, then two and two."""
    linear = dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2)
    runner, epochs = record(
        block_drop(
            tmp_path,
            drops=3,
            subset=dict(
                ratio=0.5, seed=4, epochs=1, param_scheduler=[linear])))
    rounds = read_record(tmp_path)['rounds']
    assert [sorted(r['epochs']) for r in rounds] == [['0', '1'],
                                                     ['0', '1', '2'],
                                                     ['0', '1', '2']]
    assert [r['last_epoch'] for r in rounds] == [1, 3, 5]
    assert [len(e['videos']) for e in epochs] == [4, 8, 8, 8, 8]
    assert len(set(epochs[0]['videos'])) == 4
    assert runner.epoch == 5 and runner.max_epochs == 5
    assert runner.iter == runner.max_iters == 2 + 4 * 4
    assert epochs[0]['rates'] == pytest.approx([5e-4, 1e-3])
    for i in (1, 3):  # the run's own schedule, from its start
        assert epochs[i]['rates'][0] == pytest.approx(1e-3)
        assert epochs[i + 1]['rates'][-1] < 5e-4


def test_the_last_round_has_most_of_the_epochs(block_drop, tmp_path):
    _, epochs = record(
        block_drop(
            tmp_path,
            drops=3,
            epochs_per_round=3,
            subset=dict(rounds='all_but_last', epochs=1)))
    rounds = read_record(tmp_path)['rounds']
    assert [r['last_epoch'] for r in rounds] == [1, 2, 5]
    # The last round has one schedule for its three epochs.
    starts = [e['rates'][0] for e in epochs]
    assert starts[:3] == pytest.approx([1e-3] * 3)
    assert max(starts[3:]) < 1e-3


def test_resumed_in_the_middle_of_both(block_drop, tmp_path):
    """Going on from either kind of round gives the same data and record."""
    settings = dict(
        drops=2, subset=dict(ratio=0.5, rounds=[1], val_interval=2))
    _, epochs = record(block_drop(tmp_path / 'whole', **settings))
    whole = read_record(tmp_path / 'whole')
    assert list(whole['rounds'][0]['epochs']) == ['0', '2']
    for done in (1, 3):
        cfg = block_drop(tmp_path / f'from_{done}', resume=True, **settings)
        cfg.load_from = str(tmp_path / 'whole' / f'epoch_{done}.pth')
        (tmp_path / f'from_{done}').mkdir()
        if done == 1:
            best = 'round_1_best.pth'
        else:
            best = 'round_2_best.pth'
        (tmp_path / f'from_{done}' / best).write_bytes(
            (tmp_path / 'whole' / best).read_bytes())
        _, rest = record(cfg)
        assert rest == epochs[done:]
        again = read_record(tmp_path / f'from_{done}')
        assert again['rounds'][1]['epochs'] == whole['rounds'][1]['epochs']
        assert again['rounds'][1]['dropped'] == whole['rounds'][1]['dropped']


def test_draws_of_a_subset():
    subset = EpochSubset(ToyVideos(10), 0.35, seed=1)
    draws = []
    for epoch in (0, 1, 0):
        subset.set_epoch(epoch)
        draws.append([s['data_samples'].video_name for s in (
            subset[i] for i in range(len(subset)))])
    assert len(subset) == 3 and subset.metainfo == ToyVideos.metainfo
    assert draws[0] == draws[2] != draws[1]
    assert all(len(set(draw)) == 3 for draw in draws)
    assert subset.chosen.is_shared()  # reaches workers that stay alive
    other = EpochSubset(ToyVideos(10), 0.35, seed=2)
    assert not torch.equal(other.chosen, subset.chosen)


@pytest.mark.parametrize('subset,words', [
    (dict(share=0.5), ['train_cfg.subset', "'share'", "'ratio'"]),
    (dict(validation=dict(start=2)),
     ['train_cfg.subset.validation', "'start'", "'begin'"]),
    (dict(ratio=0.), ['subset.ratio=0.0', '(0, 1]']),
    (dict(ratio=1.5), ['subset.ratio=1.5']),
    (dict(epochs=0), ['subset.epochs=0']),
    (dict(rounds='half'),
     ["subset.rounds='half'", "'first_half'", "'all_but_last'"]),
    (dict(rounds=[3]), ['subset.rounds=[3]', '1 to 2']),
])
def test_settings_that_cannot_work(block_drop, tmp_path, subset, words):
    cfg = block_drop(tmp_path, subset=subset)
    with pytest.raises(ValueError) as error:
        Runner.from_cfg(cfg).train()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parity
def test_rounds_on_a_subset_as_published(golden):
    plans = golden('training_rules.json')['round_plan']
    assert plans
    for plan in plans:
        gone = plan['already_dropped']
        total = plan['depth'] // 4
        assert [r['round'] for r in plan['rounds']] == list(
            range(gone + 1, total + 1))
        for entry in plan['rounds']:
            assert on_subset('first_half', entry['round'] - gone,
                             total - gone, gone) != entry['all_training_data']


@pytest.mark.parity
def test_evaluated_epochs_as_published(golden):
    rules = golden('training_rules.json')['evaluated_epochs']
    assert rules
    for name, rule in rules.items():
        phase = Phase(
            rule['end_epoch'],
            Validation(rule['first_start'], rule['first_interval'],
                       [(rule['second_start'], rule['second_interval'])]))
        found = [
            epoch - 1 for epoch in range(1, rule['end_epoch'] + 1)
            if phase.due(epoch)
        ]
        assert found == rule['zero_based_epochs'], name
