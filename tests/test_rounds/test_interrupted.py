"""A run that is killed anywhere ends as if it had not been."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rounds_kit import read_record

pytestmark = pytest.mark.slow

KIT = Path(__file__).with_name('interrupt_kit.py')
KILLED = [
    'scoring', 'between_record_and_drop', 'after_the_drop', 'in_an_epoch',
    'writing_a_checkpoint', 'writing_the_only_checkpoint',
    'before_the_epoch_is_judged', 'best_epoch_written',
    'between_merge_and_record', 'between_record_and_checkpoint',
    'writing_the_record', 'after_a_round'
]
BROKEN = ['no_number', 'no_room', 'no_folder']


@pytest.fixture(scope='module')
def runs(trained, tmp_path_factory):
    """Folder of all runs, and how each process ended."""
    folder = tmp_path_factory.mktemp('interrupted')
    done = subprocess.run(
        [
            sys.executable, '-W', 'ignore',
            str(KIT), trained,
            str(folder), 'whole', *KILLED, *BROKEN
        ],
        env={
            **os.environ, 'OMP_NUM_THREADS': '1'
        },
        capture_output=True,
        text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / 'ended.json').read_text())


TIMES = ('latency_ms', 'latency_ratio', 'latency_spread', 'seconds')


def timeless(content):
    """Record without times."""
    if isinstance(content, dict):
        return {
            k: timeless(v)
            for k, v in content.items() if k not in TIMES
        }
    return [timeless(v) for v in content] if isinstance(
        content, list) else content


def load(path):
    return torch.load(path, weights_only=False)


def assert_same(one, two):
    """Nested containers of tensors, equal to the last bit."""
    assert type(one) is type(two)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for a, b in zip(one, two):
            assert_same(a, b)
    else:
        assert one == two


def assert_ended_alike(whole, work_dir):
    """Same blocks, same record, same weights, nothing left over."""
    record = read_record(whole)
    assert record['finished'] and len(record['rounds']) == 2
    assert timeless(read_record(work_dir)) == timeless(record)
    for name, keys in {
            'round_1.pth': ['state_dict', 'ema_state_dict'],
            'round_2.pth': ['state_dict', 'ema_state_dict'],
            'round_2_best.pth': ['state_dict'],
            'epoch_4.pth': [
                'state_dict', 'ema_state_dict', 'optimizer',
                'param_schedulers'
            ]
    }.items():
        one, two = load(whole / name), load(work_dir / name)
        for key in keys:
            assert_same(one[key], two[key])
    assert not list(work_dir.rglob('*.tmp'))
    assert not (work_dir / 'blockdrop_scoring').exists()


@pytest.mark.parametrize('point', KILLED)
def test_killed_runs_end_like_whole_ones(runs, point):
    folder, ended = runs
    assert ended['whole'] == [0]
    assert ended[point] == [-9, 0]
    assert_ended_alike(folder / 'whole', folder / point)


def test_batches_are_not_scored_twice(runs):
    folder, _ = runs
    before = {
        point: json.loads((folder / point / 'batches_before.json').read_text())
        for point in KILLED
        if (folder / point / 'batches_before.json').exists()
    }
    assert before['scoring'] == [1]
    for point in ('between_record_and_drop', 'after_the_drop'):
        assert point not in before  # all scores were in the record


def test_the_only_checkpoint_is_held_while_the_next_is_written(runs):
    folder, _ = runs
    point = 'writing_the_only_checkpoint'
    resumed_from = (folder / f'{point}_from.txt').read_text()
    assert Path(resumed_from).name == 'held_epoch_1.pth'
    names = {p.name for p in (folder / point).glob('*epoch_*.pth')}
    assert names == {'epoch_4.pth'}


def test_loss_that_is_no_number(runs):
    folder, ended = runs
    assert ended['no_number'] == [1, 0]
    message = (folder / 'no_number.txt').read_text()
    assert message.startswith('FloatingPointError: Round 2, epoch 4 of the '
                              'run, iteration 2: the loss is nan')
    assert 'loss_align_' in message and 'clip_grad' in message
    assert '--resume goes on from epoch_3.pth' in message
    assert 'last finished round is round_1.pth' in message
    assert_ended_alike(folder / 'whole', folder / 'no_number')


def test_full_disk(runs):
    folder, ended = runs
    assert ended['no_room'] == [1, 0]
    message = (folder / 'no_room.txt').read_text()
    assert message.startswith('OSError') and 'File too large' in message
    assert 'epoch_3.pth could not be written' in message
    assert 'Make room, then go on with --resume' in message
    assert 'goes on from round_1.pth' in message
    assert_ended_alike(folder / 'whole', folder / 'no_room')


def test_removed_work_dir(runs):
    folder, ended = runs
    assert ended['no_folder'] == [1]
    message = (folder / 'no_folder.txt').read_text()
    assert message.startswith('FileNotFoundError')
    assert str(folder / 'no_folder') in message and 'removed' in message
    assert not (folder / 'no_folder').exists()
