"""Compressed checkpoints elsewhere: new processes, several processes."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy
from rounds_kit import read_record, read_weights, sharpen

SCRIPT = Path(__file__).parent / 'run_config.py'


def start(*command, **environment):
    """Run Python in a new process and wait."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        env={
            **os.environ, 'OMP_NUM_THREADS': '1',
            **environment
        },
        capture_output=True,
        text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_same_metric_in_a_new_process(finished, tmp_path, block_drop):
    """By the plain config, with ``EMAHook``, and by that of the rounds."""
    plain = toy.config(
        tmp_path / 'plain',
        custom_hooks=[dict(type='mmblockdrop.BlockDropHook')])
    averaged = toy.config(
        tmp_path / 'averaged',
        custom_hooks=[
            dict(type='mmblockdrop.BlockDropHook'),
            dict(type='EMAHook', momentum=0.3)
        ])
    beside_teacher = block_drop(tmp_path / 'wrapped')
    beside_teacher.model.checkpoint = 'not/needed.pth'
    configs = []
    for name, cfg in dict(
            plain=plain, averaged=averaged, wrapped=beside_teacher).items():
        for round_name in ('round_1', 'round_2', 'epoch_3'):
            cfg = sharpen(cfg)
            cfg.load_from = str(finished / f'{round_name}.pth')
            cfg.experiment_name = f'{name}_{round_name}'
            configs.append(tmp_path / f'{name}_{round_name}.py')
            cfg.dump(configs[-1])
    start(SCRIPT, 'test', *configs)
    first, second = read_record(finished)['rounds']
    wanted = dict(
        round_1=first['metric_after'],
        round_2=second['metric_after'],
        epoch_3=second['epochs']['1'])
    for config in configs:
        metrics = json.loads(config.with_suffix('.json').read_text())
        name = config.stem.split('_', 1)[1]
        assert metrics['tad/mAP'] == pytest.approx(wanted[name], abs=1e-6)


@pytest.mark.slow
def test_two_processes_choose_the_same_blocks(finished, tmp_path, block_drop):
    cfg = block_drop(tmp_path)
    cfg.train_dataloader.batch_size = 1
    cfg.val_dataloader.batch_size = 3
    cfg.train_cfg.score_dataloader.batch_size = 3
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.99))
    config = tmp_path / 'config.py'
    cfg.dump(config)
    start('-m', 'torch.distributed.run', '--nproc_per_node=2',
          f'--master_port={free_port()}', SCRIPT, 'train', config)
    alone, together = read_record(finished), read_record(tmp_path)
    metrics = alone['baseline']['metrics']
    assert metrics.keys() == together['baseline']['metrics'].keys()
    for name, value in metrics.items():
        assert together['baseline']['metrics'][name] == pytest.approx(
            value, abs=1e-6), name
    for one, two in zip(alone['rounds'], together['rounds']):
        assert set(one) == set(two)
        for key in ('round', 'state', 'dropped', 'blocks_left', 'params',
                    'macs', 'checkpoint', 'criterion'):
            assert one[key] == two[key], key
        assert two['metric_before'] == pytest.approx(
            one['metric_before'], abs=0.1)
    assert alone['rounds'][0]['scores'] == pytest.approx(
        together['rounds'][0]['scores'], abs=1e-6)
    state, _ = read_weights(tmp_path / 'round_2.pth')
    other, _ = read_weights(finished / 'round_2.pth')
    assert list(state) == list(other)
    assert not list(tmp_path.glob('*.tmp'))
    for pattern in ('*.pth', 'blockdrop*', 'last_checkpoint'):
        assert {f.name for f in tmp_path.glob(pattern)
                } == {f.name for f in finished.glob(pattern)}
    schedules = [
        torch.load(folder / 'epoch_4.pth',
                   weights_only=False)['param_schedulers']
        for folder in (finished, tmp_path)
    ]
    assert schedules[0] == schedules[1]
