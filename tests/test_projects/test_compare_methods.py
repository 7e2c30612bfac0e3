"""The comparison on GRID: what is compared, and the table of what is done."""
import json
import os
from pathlib import Path

import compare_methods
import pytest
from compare_methods import ENCODERS, methods

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('encoder', ENCODERS)
def test_every_row_has_a_config(encoder):
    rows = methods(ENCODERS[encoder], depth=8, epochs=20, per_round=2)
    assert all((ROOT / row.config).is_file() for row in rows)
    assert [(row.name, row.blocks) for row in rows] == [
        ('full', 8), *((name, blocks) for blocks in (6, 4)
                       for name in ('ours', 'gt-only', 'random', 'at-once',
                                    'shallow'))
    ]


def test_the_same_training_for_each():
    rows = {(row.name, row.blocks): row
            for row in methods(ENCODERS['patches'], 8, 24, 1)}
    assert rows['ours', 4].round == 4
    assert rows['ours', 6].run == rows['ours', 4].run
    assert 'train_cfg.epochs_per_round=4' in rows['at-once', 4].options
    assert 'train_cfg.drops_per_round=4' in rows['at-once', 4].options
    assert 'train_cfg.max_epochs=28' in rows['shallow', 4].options
    assert rows['shallow', 4].scratch and not rows['random', 4].scratch


def test_table_of_what_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    for seed, value in ((0, 0.7), (1, 0.8)):
        folder = tmp_path / f'seed{seed}'
        folder.mkdir()
        (folder / 'ours-6.json').write_text(
            json.dumps({'tad/mAP@0.50': value, 'tad/mAP': value / 2}))
    compare_methods.main(['--table', '--work-dir', str(tmp_path)])
    assert '| ours | 6 | 75.0 ± 7.1 | 37.5 ± 3.5 | 2 |' in \
        capsys.readouterr().out
    assert 'full' not in (tmp_path / 'table.md').read_text()


def test_unknown_row_is_rejected(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        compare_methods.main(
            ['--methods', 'our', '--work-dir', str(tmp_path)])
    error = capsys.readouterr().err
    assert '--methods our' in error and "'ours'" in error
