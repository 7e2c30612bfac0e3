"""Configs that count iterations become rounds."""
import json
import os
import subprocess
import sys
from pathlib import Path

from mmblockdrop.registry import DATASETS
from mmblockdrop.rounds.iterations import StretchSampler, ending_loader

import pytest
import toy
from mmengine.dataset import InfiniteSampler
from rounds_kit import read_record, sharpen, train
from test_resume import same_weights, timeless
from torch.utils.data import IterableDataset

pytestmark = pytest.mark.usefixtures('unmeasured')
RUN = Path(__file__).with_name('run_config.py')


@DATASETS.register_module()
class Stream(IterableDataset):

    def __init__(self, **kwargs):
        raise AssertionError('it must not be built')


def counting(cfg, kind='InfiniteSampler'):
    """As a config of an iteration-based loop leaves the rest."""
    cfg.train_dataloader.sampler = dict(type=kind, shuffle=True)
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=1000)
    cfg.default_hooks.logger = dict(
        type='LoggerHook', log_metric_by_epoch=False)
    cfg.log_processor = dict(by_epoch=False)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2)
    ]
    return cfg


@pytest.mark.parametrize('kind', ['InfiniteSampler', InfiniteSampler])
def test_endless_sampler_becomes_epochs(block_drop, tmp_path, kind):
    """Eight videos in batches of two: four iterations an epoch."""
    cfg = counting(block_drop(tmp_path, drops=1), kind)
    runner = train(cfg)
    assert (runner.epoch, runner.iter) == (2, 8)
    assert read_record(tmp_path)['finished']
    assert (tmp_path / 'epoch_2.pth').exists()


@pytest.fixture(scope='module')
def in_iterations(block_drop, tmp_path_factory):
    """Two rounds of six iterations, evaluated after every third."""
    cfg = counting(block_drop(
        tmp_path_factory.mktemp('iters'), iters_per_round=6,
        validation=dict(interval=3)))
    train(cfg)
    return Path(cfg.work_dir)


def test_rounds_of_iterations(in_iterations):
    record = read_record(in_iterations)
    assert [r['last_epoch'] for r in record['rounds']] == [2, 4]
    assert [list(r['epochs']) for r in record['rounds']] == [['0', '1', '2']
                                                             ] * 2


@pytest.mark.parametrize('epoch', [1, 3])
def test_resume_equals_uninterrupted(in_iterations, block_drop, tmp_path,
                                     epoch):
    """It is begun again from a copy in which later files are missing."""
    from test_work_dir import interrupted
    if epoch == 3:
        folder = interrupted(in_iterations, tmp_path)
    else:
        folder = tmp_path / 'first'
        folder.mkdir()
        for name in ('epoch_1.pth', 'round_1_best.pth', 'last_checkpoint',
                     'blockdrop_run.json'):
            (folder / name).write_bytes((in_iterations / name).read_bytes())
    train(counting(block_drop(folder, resume=True, iters_per_round=6,
                              validation=dict(interval=3))))
    assert timeless(read_record(folder)) == timeless(
        read_record(in_iterations))
    same_weights(folder / 'round_2.pth', in_iterations / 'round_2.pth',
                 'state_dict')


@pytest.mark.parametrize('settings, message', [
    (dict(iters_per_round=6, validation=dict(interval=4)),
     r'validation\.interval=4 does not divide .*=6; the nearest .* is 3'),
    (dict(iters_per_round=0), r'iters_per_round=0'),
    (dict(iters_per_round=6, subset=dict(ratio=0.5)), r'subset'),
    (dict(iters_per_round=6, validation=dict(dynamic_intervals=[(4, 1)])),
     r'dynamic_intervals'),
])
def test_settings_that_cannot_work(block_drop, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(counting(block_drop(tmp_path, **settings)))


def test_stream_is_rejected_before_it_is_built(block_drop, tmp_path):
    cfg = block_drop(tmp_path)
    cfg.train_dataloader.dataset = dict(type='mmblockdrop.Stream')
    with pytest.raises(ValueError, match=r"dataset\.type='Stream'.*__len__"):
        train(cfg)


def test_loader_without_sampler_cannot_count_iterations():
    loader = dict(batch_size=2, batch_sampler=dict(type='x'))
    assert ending_loader(loader) is loader
    with pytest.raises(ValueError, match=r'iters_per_round.*sampler'):
        ending_loader(loader, 3)


def test_stretches_pass_over_the_data_evenly():
    sampler = StretchSampler(range(5), 3, 2, seed=1)
    seen = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler) == 6
        assert list(sampler) == list(sampler)
        seen += list(sampler)
    passes = [seen[i:i + 5] for i in range(0, 30, 5)]
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in passes)
    assert len(set(map(tuple, passes))) > 1


@pytest.mark.slow
def test_two_processes(trained, tmp_path):
    """Each gets its share of a stretch, and both drop the same block."""
    cfg = sharpen(toy.block_drop(
        tmp_path / 'run', trained, drops=1, iters_per_round=4,
        validation=dict(interval=2), launcher='pytorch'))
    cfg = counting(cfg)
    cfg.env_cfg = dict(dist_cfg=dict(backend='gloo'))
    cfg.dump(tmp_path / 'config.py')
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone',
         '--nproc_per_node=2', str(RUN), 'train', str(tmp_path / 'config.py')],
        env=dict(os.environ, OMP_NUM_THREADS='1',
                 PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / 'run' / 'blockdrop.json').read_text())
    assert record['finished'] and record['rounds'][0]['last_epoch'] == 2
