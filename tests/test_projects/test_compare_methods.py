"""The comparison on GRID: what is compared, and the table of what is done."""
import json
import os
from pathlib import Path

import compare_methods
import pytest
from compare_methods import ENCODERS, methods, seconds_of_work

ROOT = Path(__file__).resolve().parents[2]


METHODS = [
    'cut', 'repaired', 'repaired-both', 'repaired-by-map',
    'repaired-both-by-map', 'aligned', 'repaired-aligned', 'gt-only',
    'random', 'at-once', 'shallow'
]


@pytest.mark.parametrize('encoder', ENCODERS)
def test_every_row_has_a_config(encoder):
    rows = methods(ENCODERS[encoder], 8, 20, 2, blocks=[6, 2])
    assert all((ROOT / row.config).is_file() for row in rows)
    assert [(row.name, row.blocks) for row in rows
            ] == [('full', 8),
                  *((name, blocks) for blocks in (6, 2) for name in METHODS)]


def test_the_same_training_for_each():
    rows = {(row.name, row.blocks): row
            for row in methods(ENCODERS['patches'], 8, 24, 1, [6, 4, 3])}
    assert rows['aligned', 4].round == 4
    assert rows['aligned', 6].run == rows['aligned', 4].run
    assert 'train_cfg.drops=5' in rows['aligned', 6].options
    assert 'train_cfg.epochs_per_round=4' in rows['at-once', 4].options
    assert 'train_cfg.drops_per_round=4' in rows['at-once', 4].options
    assert 'train_cfg.max_epochs=28' in rows['shallow', 4].options
    assert rows['shallow', 4].scratch and not rows['random', 4].scratch


@pytest.mark.parametrize('name', METHODS[:5])
def test_rows_without_training_train_nothing(name):
    row = next(r for r in methods(ENCODERS['patches'], 8, 24, 1, [4])
               if r.name == name)
    assert 'train_cfg.epochs_per_round=0' in row.options
    repaired = any('LinearRepair' in option for option in row.options)
    assert repaired == (name != 'cut')


def test_seconds_are_those_up_to_the_round(tmp_path):
    rounds = [dict(seconds=dict(score=1., repair=2.)),
              dict(seconds=dict(score=3.)), dict(seconds=dict(score=10.))]
    (tmp_path / 'blockdrop.json').write_text(json.dumps(dict(rounds=rounds)))
    row = next(r for r in methods(ENCODERS['patches'], 8, 24, 1, [6, 5])
               if (r.name, r.blocks) == ('repaired', 6))
    assert seconds_of_work(row, tmp_path) == 6.


def test_seconds_of_a_model_from_scratch_are_those_of_its_steps(tmp_path):
    lines = [dict(iter=50, time=.1, loss=1.), dict(step=1, mAP=.3),
             dict(iter=100, time=.2, loss=1.)]
    path = tmp_path / '20260101' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)))
    row = methods(ENCODERS['patches'], 8, 24, 1, [4])[0]
    assert seconds_of_work(row, tmp_path) == pytest.approx(15.)


def test_table_of_what_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    for seed, value in ((0, 0.7), (1, 0.8)):
        folder = tmp_path / f'seed{seed}'
        folder.mkdir()
        (folder / 'repaired-6.json').write_text(
            json.dumps({
                'tad/mAP@0.50': value,
                'tad/mAP': value / 2,
                'seconds': 30. + seed
            }))
    compare_methods.main(['--table', '--work-dir', str(tmp_path)])
    assert '| repaired | 6 | 75.0 ± 7.1 | 37.5 ± 3.5 | 30 | none | 2 |' in \
        capsys.readouterr().out
    assert 'full' not in (tmp_path / 'table.md').read_text()
    assert (tmp_path / 'table.png').stat().st_size > 1000


def test_impossible_numbers_of_blocks_are_rejected(tmp_path, monkeypatch,
                                                   capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        compare_methods.main(
            ['--table', '--blocks', '8', '--work-dir', str(tmp_path)])
    assert '--blocks 8' in capsys.readouterr().err


def test_unknown_row_is_rejected(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        compare_methods.main(
            ['--methods', 'our', '--work-dir', str(tmp_path)])
    error = capsys.readouterr().err
    assert '--methods our' in error and "'aligned'" in error
