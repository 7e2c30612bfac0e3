"""Runs that were interrupted and go on."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from rounds_kit import read_record, train

EMA = [
    dict(type='mmblockdrop.BlockDropHook'),
    dict(type='EMAHook', momentum=0.3)
]


@pytest.fixture(scope='module')
def averaged(block_drop, tmp_path_factory):
    """Work directory of a finished run with averaged weights."""
    cfg = block_drop(tmp_path_factory.mktemp('ema'), custom_hooks=EMA)
    train(cfg)
    return Path(cfg.work_dir)


def interrupted(finished, tmp_path, last, record=None):
    """Copy of a work directory as it was when ``last`` had been written."""
    epoch = int(last.split('.')[0].split('_')[-1])
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    keep = [f'epoch_{i + 1}.pth' for i in range(epoch)]
    if epoch > 2:
        keep += ['round_1.pth', 'round_2_best.pth']
    if epoch > 0:
        keep += ['round_1_best.pth']
    for name in keep:
        shutil.copy(finished / name, work_dir / name)
    if epoch:
        (work_dir / 'last_checkpoint').write_text(str(work_dir / last))
    record = read_record(finished) if record is None else record
    (work_dir / 'blockdrop.json').write_text(json.dumps(record))
    return work_dir


def timeless(record):
    """Record without what differs from run to run."""
    record = json.loads(json.dumps(record))
    for entry in [record['baseline'], *record['rounds']]:
        for key in ('latency_ms', 'latency_ratio', 'latency_spread',
                    'seconds'):
            entry.pop(key, None)
    return record


def load(path):
    return torch.load(path, weights_only=False)


def same_weights(a, b, *keys):
    for key in keys:
        one, two = load(a)[key], load(b)[key]
        assert list(one) == list(two)
        for name in one:
            assert torch.equal(one[name], two[name]), (key, name)


def test_resume_in_the_second_round(finished, block_drop, tmp_path):
    work_dir = interrupted(finished, tmp_path, 'epoch_3.pth')
    runner = train(block_drop(work_dir, resume=True))
    assert runner.epoch == 4
    assert timeless(read_record(work_dir)) == timeless(read_record(finished))
    same_weights(finished / 'round_2.pth', work_dir / 'round_2.pth',
                 'state_dict')
    same_weights(finished / 'epoch_4.pth', work_dir / 'epoch_4.pth',
                 'state_dict')
    one, two = (load(x / 'epoch_4.pth') for x in (finished, work_dir))
    a, b = one['optimizer']['state'], two['optimizer']['state']
    assert a.keys() == b.keys()
    assert all(torch.equal(a[i]['exp_avg'], b[i]['exp_avg']) for i in a)
    assert one['param_schedulers'] == two['param_schedulers']


def test_resume_with_averaged_weights(averaged, block_drop, tmp_path):
    work_dir = interrupted(averaged, tmp_path, 'epoch_3.pth')
    train(block_drop(work_dir, resume=True, custom_hooks=EMA))
    assert timeless(read_record(work_dir)) == timeless(read_record(averaged))
    same_weights(averaged / 'epoch_4.pth', work_dir / 'epoch_4.pth',
                 'state_dict', 'ema_state_dict')
    same_weights(averaged / 'round_2.pth', work_dir / 'round_2.pth',
                 'state_dict')


def test_resume_at_the_end_of_the_first_round(finished, block_drop, tmp_path):
    """Scores that the interrupted run had found are not computed again."""
    record = read_record(finished)
    scores = {k: 0. for k in record['rounds'][1]['scores']}
    marked = list(scores)[-1]
    scores[marked] = 2.
    record['rounds'][1] = dict(
        round=2,
        state='scored',
        criterion='MetricScorer',
        higher_is_better=True,
        scores=scores)
    work_dir = interrupted(finished, tmp_path, 'epoch_2.pth', record)
    train(block_drop(work_dir, resume=True))
    first, second = read_record(work_dir)['rounds']
    wanted = timeless(read_record(finished))['rounds'][0]
    assert timeless(read_record(work_dir))['rounds'][0] == wanted
    assert second['scores'] == scores and second['dropped'] == [int(marked)]
    assert first['state'] == second['state'] == 'aligned'


@pytest.mark.parametrize('change', [
    dict(resume=False),
    dict(scorer=dict(type='mmblockdrop.RandomScorer', seed=5)),
    dict(protect=[0])
])
def test_scores_of_another_run_are_not_reused(finished, block_drop, tmp_path,
                                              change):
    record = read_record(finished)
    marked = record['rounds'][0]['scores']
    marked.update({k: 2. + int(k) for k in marked})
    work_dir = interrupted(finished, tmp_path, 'epoch_0.pth', record)
    train(
        block_drop(
            work_dir, **{
                'resume': True,
                'drops': 1,
                'epochs_per_round': 0,
                **change
            }))
    entry, = read_record(work_dir)['rounds']
    assert max(entry['scores'].values()) <= 1


def test_interrupted_before_the_first_epoch(finished, block_drop, tmp_path):
    record = read_record(finished)
    marked = record['rounds'][0]['scores']
    marked.update({k: 2. + int(k) for k in marked})
    work_dir = interrupted(finished, tmp_path, 'epoch_0.pth', record)
    train(block_drop(work_dir, resume=True, drops=1, epochs_per_round=0))
    entry, = read_record(work_dir)['rounds']
    assert entry['scores'] == marked


def test_go_on_from_the_result_of_a_round(finished, block_drop, tmp_path):
    cfg = block_drop(tmp_path, resume=True)
    cfg.load_from = str(finished / 'round_1.pth')
    train(cfg)
    assert timeless(read_record(tmp_path)) == timeless(read_record(finished))
    same_weights(finished / 'round_2.pth', tmp_path / 'round_2.pth',
                 'state_dict')
