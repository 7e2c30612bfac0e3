"""Mutated files end in a result or in an error that names the file."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
COUNT = 200
KINDS = ('annotations', 'record', 'record_file', 'checkpoint',
         'partial_scores', 'video')


def write_video(path, code):
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*code), 10., (64, 64))
    rng = np.random.default_rng(0)
    for _ in range(24):
        writer.write(rng.integers(0, 255, (64, 64, 3), np.uint8))
    writer.release()


@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory):
    """What became of the files of every kind, and all files then."""
    root = tmp_path_factory.mktemp('fuzz')
    (root / 'work/videos').mkdir(parents=True)
    for name, code in (('a.mp4', 'mp4v'), ('b.avi', 'XVID'),
                       ('c.mkv', 'mp4v')):
        write_video(root / 'work/videos' / name, code)
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tests/fuzz_kit.py'), str(root / 'work'),
         str(COUNT)],
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True, text=True, timeout=900)
    line = [x for x in done.stdout.splitlines() if x.startswith('FOUND ')]
    assert line, done.stderr[-3000:]
    files = {str(p.relative_to(root)) for p in root.rglob('*')}
    shutil.rmtree(root / 'work')
    return json.loads(line[0][6:]), files


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_result_or_an_error_that_names_the_file(fuzzed, kind):
    found = fuzzed[0][kind]
    assert found['status'] == 0, (
        f'process ended with {found["status"]} at file {found["last"]}')
    assert found['unnamed'] == []
    assert found['results'] + found['errors'] == COUNT
    assert found['errors'] or kind == 'partial_scores'


@pytest.mark.slow
def test_nothing_is_written_elsewhere(fuzzed):
    outside = [name for name in fuzzed[1]
               if name != 'work' and not name.startswith('work/')]
    assert outside == []
    known = {'work', 'work/videos', *(f'work/videos/{n}' for n in (
        'a.mp4', 'b.avi', 'c.mkv'))}
    beside = {name for name in fuzzed[1] - known
              if name.split('/')[1] not in KINDS}
    assert beside == {f'work/{kind}.out' for kind in KINDS}
