"""Programs that measure: what they count, and that they go on."""
import importlib
import logging
from pathlib import Path

from mmblockdrop.registry import MODELS

import pytest
import torch
import toy

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools' / 'analysis_tools'
BENCHMARKS = ROOT / 'projects' / 'benchmarks'


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def tool(monkeypatch):
    """Import a program by name."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_nested_phases_are_counted_apart(tool, monkeypatch):
    profile = tool('profile_run')
    now = iter([0., 1., 3., 7., 15., 31.])
    monkeypatch.setattr(profile.Clock, '_now', staticmethod(lambda: next(now)))
    clock = profile.Clock()
    with clock.phase('score'):
        with clock.phase('decode'):
            assert clock.inside('score')
    clock.stop()
    assert clock.seconds['score'] == 2 + 8
    assert clock.seconds['decode'] == 4
    assert clock.seconds['rest'] == 1 + 16
    assert clock.calls['decode'] == 1


def test_profile_of_a_round(tool, tmp_path, capsys):
    profile = tool('profile_run')
    path = tmp_path / 'teacher.pth'
    model = MODELS.build(toy.localizer())
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    cfg = toy.block_drop(tmp_path / 'run', str(path))
    cfg.custom_imports = dict(imports=['toy'])
    cfg.log_level = 'ERROR'
    config = tmp_path / 'config.py'
    cfg.dump(config)
    picture = tmp_path / 'profile.png'
    before = dict(vars(profile.OptimWrapper))
    assert profile.main([str(config), '--out', str(picture)]) == 0
    rows = {
        line.split('|')[1].strip(): line.split('|')[4].strip()
        for line in capsys.readouterr().out.splitlines() if '|' in line
    }
    assert rows['score'] == '1'
    assert rows['teacher'] == rows['student'] == rows['backward'] == '4'
    assert int(rows['decode']) > 4 and int(rows['evaluate']) > 4
    assert picture.stat().st_size > 5000
    assert dict(vars(profile.OptimWrapper)) == before
    assert profile.main([str(config), '--samples', '2']) == 1
    assert "ToyVideos has no argument 'indices'" in capsys.readouterr().err
    assert profile.main([str(tmp_path / 'absent.py')]) == 1


def test_profile_of_an_epoch_without_block_drop(tool, tmp_path, capsys):
    profile = tool('profile_run')
    cfg = toy.config(tmp_path / 'run')
    cfg.custom_imports = dict(imports=['toy'])
    cfg.log_level = 'ERROR'
    cfg.train_cfg.max_epochs = 3
    config = tmp_path / 'config.py'
    cfg.dump(config)
    picture = tmp_path / 'profile.png'
    assert profile.main([str(config), '--out', str(picture)]) == 0
    rows = {
        line.split('|')[1].strip(): line.split('|')[4].strip()
        for line in capsys.readouterr().out.splitlines() if '|' in line
    }
    assert rows['student'] == rows['backward'] == rows['optimizer'] == '4'
    assert rows['score'] == rows['teacher'] == '-'
    assert int(rows['evaluate']) > 1 and rows['epoch'] == '1'
    assert picture.stat().st_size > 5000
    cfg.train_cfg = dict(by_epoch=False, max_iters=3)
    cfg.dump(config)
    assert profile.main([str(config)]) == 1
    assert 'expected by_epoch=True' in capsys.readouterr().err


def test_every_rule_has_a_row(tool, tmp_path):
    scoring = tool('benchmark_scoring')
    page = tmp_path / 'page.md'
    assert scoring.main([
        '--depths', '3', '--problems', '2', '--timed', '1', '--batches', '5',
        '--batch-size', '2', '--steps', '2', '--criteria', 'loss', '--page',
        str(page)
    ]) == 0
    lines = page.read_text().split('### 3 blocks, by loss')[1].splitlines()
    rows = [[cell.strip() for cell in line.split('|')[1:5]]
            for line in lines if line.startswith('|')][2:]
    assert [row[0] for row in rows] == ['plain', 'shared', 'raced']
    assert [row[2] for row in rows[:2]] == ['1.000', f'{5 / 6:.3f}']
    assert [row[3] for row in rows[:2]] == ['1 of 1', '2 of 2']


def test_a_toy_problem_follows_from_its_seed(tool):
    make = tool('benchmark_scoring').make_problem
    first, again, other = (make(2, seed, 2, 2, 2) for seed in (0, 0, 1))
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    batch = next(iter(first.batches))['inputs']
    assert all(map(torch.equal, batch, next(iter(again.batches))['inputs']))
    assert not torch.equal(batch[0], next(iter(other.batches))['inputs'][0])
