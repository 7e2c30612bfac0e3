"""Configs, records and checkpoints of version 1 still work."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from programs import load_program

TESTS = Path(__file__).resolve().parent
VERSION1 = TESTS / 'data' / 'version1'
FOREIGN = TESTS / 'test_project' / 'foreign'
RECORD = json.loads((VERSION1 / 'whole' / 'blockdrop.json').read_text())
#: Other processors round otherwise; the choices have a margin of 0.006.
METRIC = dict(abs=0.02)
WEIGHTS = dict(rtol=1e-2, atol=1e-3)
#: Softmax cancels it: its gradient is rounding, which AdamW makes a step of.
CANCELLED = 'key_norm.bias'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder, the current one, from which Python imports."""
    shutil.copytree(VERSION1, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(VERSION1))
    return tmp_path


def train(config, work_dir, resume=False):
    """Run a config as it stands; returns its record and result."""
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.resume = work_dir, resume
    cfg.experiment_name = f'{work_dir}_{id(cfg)}'
    Runner.from_cfg(cfg).train()
    record = json.loads(Path(work_dir, 'blockdrop.json').read_text())
    return record, Path(work_dir, record['result'])


def choices(record):
    """What a run decided: blocks and what the model costs without them."""
    return [(e['dropped'], e['blocks_left'], e['params'], e['macs'])
            for e in record['rounds']]


def metrics(record):
    """All values of the metric, by round."""
    values = [record['baseline']['metric']]
    for entry in record['rounds']:
        values += [*entry['scores'].values(), *entry['epochs'].values()]
    return values


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def assert_same_result(record, result):
    assert record['finished']
    assert choices(record) == choices(RECORD)
    assert metrics(record) == pytest.approx(metrics(RECORD), **METRIC)
    found, expected = weights(result), weights(VERSION1 / 'whole/round_2.pth')
    assert list(found) == list(expected)
    if record['rounds'][-1]['best_epoch'] == RECORD['rounds'][-1][
            'best_epoch']:
        for name in (n for n in expected if not n.endswith(CANCELLED)):
            torch.testing.assert_close(
                found[name], expected[name], msg=lambda m: f'{name}: {m}',
                **WEIGHTS)


def test_a_config_runs_unchanged(project):
    assert_same_result(*train('blockdrop.py', 'run'))


@pytest.mark.parametrize('point', ['training', 'scoring'])
def test_an_interrupted_run_is_resumed(project, point):
    record, result = train('blockdrop.py', f'interrupted_{point}', resume=True)
    assert_same_result(record, result)
    before = json.loads(
        (VERSION1 / f'interrupted_{point}' / 'blockdrop.json').read_text())
    for old, new in zip(before['rounds'], record['rounds']):
        assert new['scores'] == old['scores']  # not computed again
        for epoch, metric in old['epochs'].items():
            assert new['epochs'][epoch] == metric


def test_a_result_tests_to_the_metric_of_its_record(project):
    load_program('test').main(
        ['blockdrop.py', 'whole/round_2.pth', '--work-dir', 'tested'])
    written, = Path('tested').glob('*/*.json')
    found = json.loads(written.read_text())
    expected = json.loads((VERSION1 / 'whole' / 'test.json').read_text())
    for key in (key for key in expected if key.startswith('tad/')):
        assert found[key] == pytest.approx(expected[key], **METRIC)


def test_a_result_is_exported(project):
    status = load_program('export').main(
        ['blockdrop.py', 'whole/round_2.pth', 'exported', '--shape',
         *'1 1 3 16 16 16'.split()])
    assert not status
    report = json.loads(Path('exported/export.json').read_text())
    stack, = report['stacks']
    assert stack['kept'] == RECORD['rounds'][-1]['blocks_left']
    assert report['max_difference'] < 1e-5


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    """On a localizer, a data set and a metric that are not ours."""
    shutil.copytree(FOREIGN, tmp_path, dirs_exist_ok=True)
    shutil.copy(VERSION1 / 'readme_lines.py',
                tmp_path / 'configs' / 'readme_lines.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_project import ActionnessLocalizer
    torch.manual_seed(0)
    model = ActionnessLocalizer(
        dict(type='mmaction.FeatureEncoder', in_channels=6, channels=8,
             num_blocks=4), 8)
    weights_of_theirs = tmp_path / 'work_dirs/my_localizer/epoch_2.pth'
    weights_of_theirs.parent.mkdir(parents=True)
    torch.save(
        dict(state_dict=model.state_dict(), meta={}), weights_of_theirs)
    record, result = train('configs/readme_lines.py', 'run')
    assert record['finished'] and record['metric'] == 'steps/accuracy'
    assert result.name == 'round_1.pth'
    remaining = {k.split('.')[2] for k in weights(result)
                 if k.startswith('backbone.blocks')}
    dropped, = record['rounds'][0]['dropped']
    assert remaining == {'0', '1', '2', '3'} - {str(dropped)}
