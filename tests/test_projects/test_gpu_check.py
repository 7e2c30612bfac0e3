"""The check for machines with a GPU, as far as a CPU can try it."""
import json
import subprocess
from pathlib import Path

import gpu_check
import pytest

SCRIPT = Path(gpu_check.__file__).with_suffix('.sh')


def test_results_and_page_of_a_check(tmp_path, capsys):
    assert gpu_check.main([str(tmp_path), '--toy', '--only', 'repair']) == 0
    found = json.loads((tmp_path / 'gpu_check.json').read_text())
    rows = found['checks']['repair']['rows']
    assert {row['dropped'] for row in rows} == {'1', '3'}
    assert all(
        float(row['error after']) < float(row['error before'])
        for row in rows)
    page = (tmp_path / 'gpu_check.md').read_text()
    assert rows[0]['fitted'] in page and 'torch' in page
    assert 'Latency' not in page  # it was not run


def test_a_check_that_fails_is_named_and_leaves_the_others(tmp_path,
                                                           monkeypatch):
    monkeypatch.setattr(
        gpu_check, 'in_own_process', lambda name, toy, limit: dict(
            rows=[dict(result='fine')]) if name == 'onnx' else dict(
                failed='RuntimeError: no kernel'))
    code = gpu_check.main(
        [str(tmp_path), '--toy', '--only', 'latency', 'onnx'])
    assert code == 1
    page = (tmp_path / 'gpu_check.md').read_text()
    assert 'RuntimeError: no kernel' in page and 'fine' in page


def test_no_check_begins_when_the_time_is_up(tmp_path):
    assert gpu_check.main([str(tmp_path), '--toy', '--seconds', '1']) == 1
    found = json.loads((tmp_path / 'gpu_check.json').read_text())
    assert all('failed' in check for check in found['checks'].values())
    assert list(found['checks']) == list(gpu_check.CHECKS)


def test_results_enter_the_benchmarks_page(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, 'PAGE', tmp_path / 'page.md')
    results = dict(
        sizes=dict(frames=768, pixels=160, width=384, depth=12),
        conditions='*torch 1, a GPU*',
        checks=dict(latency=dict(rows=[dict(precision='bf16')])))
    path = tmp_path / 'gpu_check.json'
    path.write_text(json.dumps(results))
    assert gpu_check.main(['--page', str(path)]) == 0
    text = (tmp_path / 'page.md').read_text()
    assert '## On a GPU' in text and 'bf16' in text and '768' in text


def test_script_names_packages_with_their_pins():
    done = subprocess.run(['bash', str(SCRIPT), '--packages'],
                          capture_output=True, text=True, check=True)
    assert 'mmengine==' in done.stdout and 'decord==' in done.stdout


@pytest.mark.parametrize('arguments', [[], ['out', '--page', 'a.json']])
def test_either_a_folder_or_results(arguments):
    with pytest.raises(SystemExit):
        gpu_check.parse_args(arguments)
