"""A run owns its work directory, and knows its own files in it."""
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mmblockdrop.rounds.resume import last_point
from mmblockdrop.rounds.run_file import RunFile, changes, flat_config
from mmblockdrop.utils.lock import LOCK, WorkDirInUse, owned

import pytest
import torch
from rounds_kit import read_record, train
from test_resume import same_weights, timeless

pytestmark = pytest.mark.usefixtures('unmeasured')

HOLD = '''
import os, sys, time
from mmblockdrop.utils.lock import owned
with owned(sys.argv[1]):
    worker = os.fork()
    if worker:
        print(os.getpid(), worker, flush=True)
    time.sleep(60)
'''
EMA = dict(type='EMAHook', momentum=0.3)
HOOK = dict(type='mmblockdrop.BlockDropHook')


@pytest.fixture
def holder(tmp_path):
    """Process that owns a folder, and a worker that it has forked."""
    held = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        stdout=subprocess.PIPE,
        text=True)
    parent, worker = map(int, held.stdout.readline().split())
    yield parent
    held.kill()
    held.wait()
    os.kill(worker, signal.SIGKILL)


def test_second_run_in_a_folder_is_rejected(holder, block_drop, tmp_path):
    (tmp_path / 'blockdrop.json').write_text('as it was')
    with pytest.raises(WorkDirInUse, match=f'{tmp_path}.*process {holder} on'):
        train(block_drop(tmp_path))
    assert (tmp_path / 'blockdrop.json').read_text() == 'as it was'


def test_lock_ends_with_the_process_not_with_its_workers(holder, tmp_path):
    with pytest.raises(WorkDirInUse), owned(tmp_path):
        pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with owned(tmp_path), owned(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()


def test_folder_without_locks(monkeypatch, tmp_path):
    monkeypatch.setattr('mmblockdrop.utils.lock.fcntl', None)
    with pytest.warns(UserWarning, match=str(tmp_path)), owned(tmp_path):
        pass


# ------------------------------------------------------------ whole states
@pytest.fixture(scope='module')
def whole(block_drop, tmp_path_factory):
    """Finished run of two rounds of two epochs."""
    folder = tmp_path_factory.mktemp('whole')
    train(block_drop(folder))
    return folder


def interrupted(whole, tmp_path, epoch=3):
    """Copy of the run as a kill after an epoch of round 2 would leave it."""
    folder = tmp_path / 'copy'
    shutil.copytree(whole, folder)
    for path in folder.glob('epoch_*.pth'):
        if int(path.stem[6:]) > epoch:
            path.unlink()
    (folder / 'round_2.pth').unlink()
    record = read_record(whole)
    last = record['rounds'][-1]
    for key in ('last_epoch', 'checkpoint', 'metric_after', 'best_epoch'):
        last.pop(key)
    last['epochs'] = {'0': last['epochs']['0']}
    last['state'] = 'dropped'
    for key in ('finished', 'stopped', 'result'):
        record.pop(key)
    (folder / 'blockdrop.json').write_text(json.dumps(record))
    (folder / 'last_checkpoint').write_text(str(whole / f'epoch_{epoch}.pth'))
    return folder


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


DAMAGES = dict(
    copied=[],
    no_note=[('last_checkpoint', Path.unlink)],
    note_zeroed=[('last_checkpoint', zeros)],
    best_cut=[('round_2_best.pth', half)],
    best_empty=[('round_2_best.pth', lambda p: p.write_bytes(b''))],
    best_zeroed=[('round_2_best.pth', zeros)],
    best_missing=[('round_2_best.pth', Path.unlink)],
    epoch_flipped=[('epoch_3.pth', flipped)],
    record_zeroed=[('blockdrop.json', zeros)],
    record_is_a_list=[('blockdrop.json', lambda p: p.write_text('[1]'))],
    much=[('blockdrop.json', zeros), ('last_checkpoint', zeros),
          ('epoch_3.pth', flipped), ('round_2_best.pth', half)],
    run_file_zeroed=[('blockdrop_run.json', zeros)])


@pytest.mark.parametrize('damage', list(DAMAGES))
def test_resumes_from_the_newest_whole_state(whole, block_drop, tmp_path,
                                             damage):
    folder = interrupted(whole, tmp_path)
    for name, change in DAMAGES[damage]:
        change(folder / name)
    runner = train(block_drop(folder, resume=True))
    assert Path(runner._load_from).parent == folder
    assert timeless(read_record(folder)) == timeless(read_record(whole))
    same_weights(folder / 'round_2.pth', whole / 'round_2.pth', 'state_dict')
    same_weights(folder / 'epoch_4.pth', whole / 'epoch_4.pth', 'state_dict')


def test_record_and_checkpoints_damaged(whole, block_drop, tmp_path):
    folder = interrupted(whole, tmp_path)
    for path in [folder / 'blockdrop.json', *folder.glob('*.pth')]:
        zeros(path)
    with pytest.raises(ValueError, match=r'delete .*copy/blockdrop\.json'):
        train(block_drop(folder, resume=True))


def test_named_checkpoint_without_its_best_epoch(whole, block_drop, tmp_path):
    folder = interrupted(whole, tmp_path)
    half(folder / 'round_2_best.pth')
    cfg = block_drop(folder, resume=True)
    cfg.load_from = str(folder / 'epoch_3.pth')
    with pytest.raises(ValueError, match='round_2_best.pth'):
        train(cfg)


def test_files_of_an_older_run_are_passed_over(whole, block_drop, tmp_path):
    """Epochs 2 to 4 are of another run that was in the folder before."""
    folder = tmp_path / 'run'
    train(block_drop(folder, drops=1))
    for number in (2, 3, 4):
        shutil.copy(whole / f'epoch_{number}.pth', folder)
    record = read_record(folder)
    assert last_point(folder, dict(record, rounds=[])).name == 'epoch_1.pth'
    assert last_point(folder, record).name == 'round_1.pth'


@pytest.mark.parametrize('content', [b'text', [1], dict(states=3)])
@pytest.mark.parametrize('name', ['rank0_00000000.pt', 'rank0_x.pt', 'a.pt'])
def test_partial_scores_that_are_none(whole, block_drop, tmp_path, name,
                                      content):
    folder = tmp_path / 'run' / 'blockdrop_scoring'
    folder.mkdir(parents=True)
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        torch.save(content, folder / name)
    cfg = block_drop(folder.parent, drops=1, epochs_per_round=0)
    cfg.resume = True
    train(cfg)
    found, = read_record(folder.parent)['rounds']
    assert found['scores'] == read_record(whole)['rounds'][0]['scores']
    assert not folder.exists()


# ------------------------------------------------------------ other configs
@pytest.mark.parametrize('change, key', [
    (dict(lora=dict(rank=2)), r'train_cfg\.lora\.rank: 4 -> 2 \(refused\)'),
    (dict(lora=None), r'train_cfg\.lora\.rank: 4 -> not set \(refused\)'),
    (dict(protect=[0]), r'train_cfg\.protect: not set -> \[0\] \(refused'),
    (dict(epochs_per_round=3), r'train_cfg\.epochs_per_round: 2 -> 3 \(ref'),
    (dict(repair=dict(type='mmblockdrop.LinearRepair')),
     r'train_cfg\.repair\.type: not set -> .mmblockdrop\.LinearRepair'),
    (dict(student=dict(merge_lora='end')), r'student\.merge_lora'),
    (dict(frozen=['backbone']), r'train_cfg\.student\.frozen'),
    (dict(custom_hooks=[HOOK, EMA]), r'custom_hooks\.EMAHook\.type'),
    (dict(custom_hooks=[dict(HOOK, start_dropped=[1])]),
     r'BlockDropHook\.start_dropped: not set -> \[1\] \(refused\)'),
])
def test_what_cannot_be_mixed_within_a_round(whole, block_drop, tmp_path,
                                             change, key):
    folder = interrupted(whole, tmp_path)
    before = (folder / 'blockdrop_run.json').read_text()
    with pytest.raises(ValueError, match=key):
        train(block_drop(folder, resume=True, **change))
    assert (folder / 'blockdrop_run.json').read_text() == before


def test_alignments_cannot_change_within_a_round(whole, block_drop, tmp_path):
    cfg = block_drop(interrupted(whole, tmp_path), resume=True)
    cfg.model.alignments = dict(
        block=dict(type='mmblockdrop.BlockAlignment', weight=2.))
    with pytest.raises(ValueError, match=r'model\.alignments\.block\.weight'):
        train(cfg)


def test_change_between_rounds_takes_effect(whole, block_drop, tmp_path,
                                            caplog):
    """The round is repeated; files of its first form do not count."""
    folder = interrupted(whole, tmp_path)
    first, = json.loads((folder / 'blockdrop_run.json').read_text())['entries']
    cfg = block_drop(folder, resume=True, epochs_per_round=1,
                     scorer=dict(type='mmblockdrop.RandomScorer'))
    cfg.load_from = str(folder / 'round_1.pth')
    train(cfg)
    record = read_record(folder)
    assert [r['last_epoch'] for r in record['rounds']] == [2, 3]
    assert record['rounds'][1]['criterion'] == 'RandomScorer'
    old, new = json.loads(
        (folder / 'blockdrop_run.json').read_text())['entries']
    assert old == dict(first, until=[2, 1])
    assert old['config']['train_cfg.epochs_per_round'] == 2
    assert new['config']['train_cfg.epochs_per_round'] == 1
    shutil.copy(whole / 'epoch_4.pth', folder)  # of the first form
    unfinished = dict(record, rounds=record['rounds'][:1])
    assert last_point(folder, unfinished).name == 'epoch_3.pth'


def test_what_may_change_within_a_round(whole, block_drop, tmp_path):
    folder = interrupted(whole, tmp_path)
    cfg = block_drop(folder, resume=True)
    cfg.train_cfg.stop = dict(tolerance=2.)
    cfg.train_dataloader.num_workers = 1
    train(cfg)
    assert timeless(read_record(folder)) == timeless(read_record(whole))


def test_config_is_read_back_as_it_was_kept(tmp_path):
    """Classes, tuples and infinite numbers count as unchanged."""
    cfg = dict(
        optim_wrapper=dict(
            type=torch.optim.SGD, clip_grad=dict(max_norm=float('inf'))),
        train_dataloader=dict(sampler=dict(type='DefaultSampler')),
        train_cfg=dict(val_begin=2, protect=(0, 1)),
        custom_hooks=[HOOK, EMA])
    moved = dict(val_begin=('validation', 'begin'))
    flat = flat_config(cfg, moved)
    RunFile(tmp_path).begin(flat, None)
    assert RunFile(tmp_path).last['config'] == flat_config(cfg, moved)
    assert flat['train_cfg.validation.begin'] == 2
    assert flat['custom_hooks.EMAHook.momentum'] == 0.3
    assert not changes(RunFile(tmp_path).last['config'], flat, True)
