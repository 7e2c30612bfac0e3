"""Latency tables, and a full run on paper."""
import importlib
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

TOOLS = Path(__file__).resolve().parents[2] / 'projects' / 'benchmarks'


@pytest.fixture
def tool(monkeypatch):
    """Import a program by name."""
    init_default_scope('mmaction')
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def cells(table):
    lines = [x for x in table.splitlines() if x.startswith('|')]
    head, _, *rows = [[c.strip() for c in x.split('|')[1:-1]] for x in lines]
    return [dict(zip(head, row)) for row in rows]


def test_fewer_blocks_need_fewer_operations(tool):
    inference = tool('benchmark_inference')
    args = inference.parse_args(
        ['--frames', '16', '--size', '32', '--drops', '1', '--repeats', '1'])
    full, short = cells(inference.latency_table(args, 'fp32'))
    assert (full['dropped'], short['dropped']) == ('0', '1')
    assert full['MACs allow'] == full['faster'] == '1.000'
    assert 1 < float(short['MACs allow']) < 12 / 11
    assert short['paper, faster'] == f'{104.9 / 98.4:.3f}'
    row, = cells(inference.encoder_table(args))
    assert float(row['largest difference']) < 1e-4


@pytest.mark.slow
def test_a_full_run_is_counted_from_its_config(tool, tmp_path):
    cost = tool('benchmark_scale')
    action = [dict(segment=[5, 20], label='jump')]
    database = {
        f'v{i}': dict(subset='training', duration=60., fps=30., frame=1800,
                      annotations=action)
        for i in range(10)
    }
    ann_file = tmp_path / 'annotations.json'
    ann_file.write_text(json.dumps(dict(database=database)))
    (tmp_path / 'category_idx.txt').write_text('jump\n')
    run = cost.paper_run('small', 3, ann_file, 2.)
    # A tenth of the videos chooses the epoch, one window each.
    assert (run['videos'], run['scored'], run['val']) == (9, 9, 1)
    cfg = Config.fromfile(str(cost.ROOT / cost.RUN.format('small', 3)))
    epochs = 3 * cfg.train_cfg.epochs_per_round
    assert .85 * run['full'] < run['train'] / (9 * epochs * 2.) < run['full']
    assert .5 < run['shared'] / run['plain'] < .65
    assert run['validate'] < run['full'] * (epochs + 3)
