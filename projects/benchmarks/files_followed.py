"""Files that one test window and one round pass through.

    python projects/benchmarks/files_followed.py

Runs the demonstration's localizer on one window of a generated video, from the
data set to its detections and their metric, and one round of a toy run, and
lists the files of the package in which a function ran. The round is counted
without the localizer and its metric, and both without the patches of released
bugs.
"""
import logging
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Iterable, Set

import mmblockdrop
from mmblockdrop.data.prepare.synthetic import DemoSpec, make_dataset
from mmblockdrop.registry import MODELS

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = str(Path(mmblockdrop.__file__).parent)
BASELINE = 'configs/demo_actions/actionformer_vit-w64-d8_8e_demo-actions.py'
WINDOW = ('backbones', 'evaluation', 'localizers', 'structures')


def files_of(run: Callable[[], Any], without: Iterable[str]) -> Set[str]:
    """Files of the package in which a function runs.

    Args:
        run: What is followed.
        without: Rooms that do not count.

    Returns:
        Paths inside the package.
    """
    found: Set[str] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == 'call' and code.co_filename.startswith(PACKAGE) and (
                code.co_name != '<module>'):
            found.add(os.path.relpath(code.co_filename, PACKAGE))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {path for path in found if path.split('/')[0] not in without}


def test_window(folder: Path) -> Set[str]:
    """Files of one window, from the data set to its metric.

    Args:
        folder: Where the video goes.

    Returns:
        Paths inside the package.
    """
    os.chdir(folder)
    make_dataset(
        'data/demo_actions',
        DemoSpec(videos=dict(training=1, validation=1, test=1)))
    cfg = Config.fromfile(str(ROOT / BASELINE))
    cfg.update(work_dir=str(folder), log_level='ERROR', custom_hooks=[])
    runner = Runner.from_cfg(cfg)
    loop = runner.test_loop
    runner.model.eval()

    def run() -> None:
        batch = loop.dataloader.collate_fn([loop.dataloader.dataset[0]])
        with torch.no_grad():
            found = runner.model.test_step(batch)
        loop.evaluator.process(data_samples=found, data_batch=batch)
        metric, = loop.evaluator.metrics
        metric.compute_metrics(metric.results)

    return files_of(run, ['compat'])


def one_round(folder: Path) -> Set[str]:
    """Files of one round of a toy run.

    Args:
        folder: Where the run goes.

    Returns:
        Paths inside the package.
    """
    sys.path.insert(0, str(ROOT / 'tests'))
    import toy
    init_default_scope('mmaction')
    torch.save(
        dict(state_dict=MODELS.build(toy.localizer()).state_dict(), meta={}),
        folder / 'teacher.pth')
    cfg = toy.block_drop(
        folder / 'run', str(folder / 'teacher.pth'), drops=1)
    cfg.update(
        custom_imports=dict(imports=['toy']),
        log_level='ERROR',
        experiment_name='files_followed')
    return files_of(Runner.from_cfg(cfg).train, ['compat', *WINDOW])


def main() -> None:
    """Print both lists."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        for title, follow in (('a test window', test_window), ('a round',
                                                               one_round)):
            files = follow(Path(folder))
            print(f'\n{title}: {len(files)} files')
            print(*sorted(files), sep='\n')


if __name__ == '__main__':
    main()
