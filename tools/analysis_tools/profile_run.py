"""Where the time of a run goes.

    python tools/analysis_tools/profile_run.py CONFIG [--samples 8]

runs one round of block drop with one epoch, or one epoch and validation of
any other config, in a folder of its own, prints a table and draws a picture.
Times are exclusive: what scoring waits for data counts as decoding, not as
scoring. With workers that decode meanwhile, decoding is the time spent waiting
for them. Without block drop there is no teacher, and the student is the model.
"""
import argparse
import functools
import inspect
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import mmblockdrop.rounds  # registers the scorers
from mmblockdrop.registry import SCORERS
from mmblockdrop.report import markdown_table
from mmblockdrop.utils.canvas import canvas, save_figure
from mmblockdrop.utils.config import type_name
from mmblockdrop.utils.messages import require_file

import torch
from mmengine.config import Config, DictAction
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import dataloader

PHASES = ('decode', 'score', 'teacher', 'student', 'backward', 'optimizer',
          'evaluate', 'rest')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a run by epochs')
    parser.add_argument(
        '--samples', type=int, metavar='N',
        help='take only the first N samples of each data set')
    parser.add_argument(
        '--out', default='profile.png', help='picture (default: profile.png)')
    parser.add_argument(
        '--work-dir', help='keep the run here; default: a temporary folder')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='settings of the config to replace, as key=value')
    return parser.parse_args(argv)


class Clock:
    """Exclusive time of nested phases.

    Attributes:
        seconds: Time of each phase.
        calls: How often each was entered.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again, outside of all phases but the present ones."""
        self.seconds = dict.fromkeys(PHASES, 0.)
        self.calls = dict.fromkeys(PHASES, 0)
        self._open: List[str] = getattr(self, '_open', ['rest'])
        self._since = self._now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside for ``name``."""
        self._switch()
        self._open.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def inside(self, name: str) -> bool:
        """Whether a phase is open."""
        return name in self._open

    def _switch(self) -> None:
        """Count the time since the last change for the open phase."""
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def stop(self) -> None:
        """Count the time up to now."""
        self._switch()

    @staticmethod
    def _now() -> float:
        """Seconds; a GPU is waited for."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def replaced(owner: Any, name: str,
             make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Put something around a method of a class for a while."""
    old = owner.__dict__[name]
    setattr(owner, name, functools.wraps(old)(make(old)))
    try:
        yield
    finally:
        setattr(owner, name, old)


def timed(clock: Clock, name: str,
          quiet_in: Sequence[str] = ()) -> Callable[[Callable], Callable]:
    """Wrapper that counts calls of a method as a phase.

    Args:
        clock: Where to count.
        name: The phase.
        quiet_in: Not inside these phases.

    Returns:
        For :func:`replaced`.
    """

    def make(old: Callable) -> Callable:

        def method(*args: Any, **kwargs: Any) -> Any:
            if any(map(clock.inside, quiet_in)):
                return old(*args, **kwargs)
            with clock.phase(name):
                return old(*args, **kwargs)

        return method

    return make


class StopAfterEpoch(Hook):
    """End a run by epochs after the first, and its validation."""

    def after_train_epoch(self, runner: Runner) -> None:
        """Ask the loop to stop."""
        runner.train_loop.stop_training = True


@contextmanager
def watching(clock: Clock, model: type) -> Iterator[None]:
    """Count phases of whatever runs inside.

    Args:
        clock: Counts.
        model: Class whose ``forward`` is a step of the student.
    """
    started: List[bool] = []

    def scorer(old: Callable) -> Callable:

        def method(*args: Any, **kwargs: Any) -> Any:
            if not started:  # the round begins
                started.append(True)
                clock.reset()
            with clock.phase('score'):
                return old(*args, **kwargs)

        return method

    def wrapper(old: Callable) -> Callable:

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled() or clock.inside('score'):
                return old(self, *args, **kwargs)
            with clock.phase('student'), ExitStack() as stack:
                teacher = getattr(self, 'teacher', None)
                if teacher is not None:
                    teacher.forward = timed(clock, 'teacher')(teacher.forward)
                    stack.callback(teacher.__dict__.pop, 'forward', None)
                return old(self, *args, **kwargs)

        return forward

    aside = ('score', 'student')
    with ExitStack() as stack:
        enter = stack.enter_context
        for kind in set(SCORERS.module_dict.values()):
            if '__call__' in kind.__dict__:
                enter(replaced(kind, '__call__', scorer))
        enter(replaced(model, 'forward', wrapper))
        enter(replaced(dataloader._BaseDataLoaderIter, '__next__',
                       timed(clock, 'decode')))
        enter(replaced(BaseModel, 'val_step',
                       timed(clock, 'evaluate', aside)))
        for method in ('process', 'evaluate'):
            enter(replaced(Evaluator, method,
                           timed(clock, 'evaluate', aside)))
        for kind in (OptimWrapper, AmpOptimWrapper):
            for method, name in (('backward', 'backward'),
                                 ('step', 'optimizer')):
                if method in kind.__dict__:
                    enter(replaced(kind, method, timed(clock, name)))
        yield


def has_rounds(cfg: Config) -> bool:
    """Whether a config drops blocks."""
    return type_name(cfg.get('train_cfg')) == 'DistillationLoop'


def shorten(cfg: Config, samples: Optional[int]) -> Config:
    """One round of one epoch, or one epoch, on part of the data.

    Args:
        cfg: Config of a run.
        samples: Samples of each data set.

    Returns:
        The changed config.

    Raises:
        ValueError: The run is not by epochs, or a data set cannot be cut.
    """
    train = cfg.get('train_cfg') or {}
    if has_rounds(cfg):
        train.update(drops=1, epochs_per_round=1)
    elif train.get('by_epoch') or type_name(train) == 'EpochBasedTrainLoop':
        train.update(val_begin=1, val_interval=1)
    else:
        raise ValueError(
            f'{cfg.filename}: train_cfg is {dict(train)}, expected '
            "by_epoch=True or type='mmblockdrop.DistillationLoop'")
    loaders = [cfg.get(f'{k}_dataloader') for k in ('train', 'val', 'test')]
    for loader in (*loaders, train.get('score_dataloader')):
        if samples is None or not loader:
            continue
        kind = loader['dataset']['type']
        if isinstance(kind, str):
            kind = DATASETS.get(kind)
        known = inspect.signature(kind.__init__).parameters
        if 'indices' not in known and 'kwargs' not in known:
            raise ValueError(f'--samples: {kind.__name__} has no argument '
                             "'indices'; leave --samples out")
        loader['dataset']['indices'] = samples
    return cfg


def rows(clock: Clock, whole: str = 'round') -> List[Dict[str, str]]:
    """Phases as rows of a table, with their sum.

    Args:
        clock: After the run.
        whole: Name of the sum.

    Returns:
        The rows.
    """
    total = sum(clock.seconds.values())
    found = [{
        'phase': name,
        'seconds': f'{clock.seconds[name]:.2f}',
        'share': f'{100 * clock.seconds[name] / total:.1f} %',
        'calls': str(clock.calls[name]) if clock.calls[name] else '-'
    } for name in PHASES]
    return found + [{
        'phase': whole,
        'seconds': f'{total:.2f}',
        'share': '100 %',
        'calls': '1'
    }]


def draw(clock: Clock, path: str, title: str, whole: str = 'round') -> None:
    """Bars of the phases.

    Args:
        clock: After the run.
        path: PNG to write.
        title: Its title.
        whole: Of what these are the seconds.
    """
    figure = canvas(6.4, 3.2)
    axes = figure.subplots()
    names = list(PHASES)[::-1]
    values = [clock.seconds[name] for name in names]
    bars = axes.barh(names, values, color='tab:blue')
    total = sum(values)
    axes.bar_label(bars, [f' {100 * v / total:.0f} %' for v in values])
    axes.margins(x=0.12)
    axes.set_xlabel(f'seconds of one {whole}')
    axes.set_title(title, fontsize=9)
    axes.spines[['top', 'right']].set_visible(False)
    save_figure(figure, path)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a round and show where its time went."""
    args = parse_args(argv)
    try:
        require_file(args.config, 'config')
        cfg = Config.fromfile(args.config)
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmaction'))
        cfg = shorten(cfg, args.samples)
    except (OSError, ValueError) as error:
        print(f'profile_run.py: {error}', file=sys.stderr)
        return 1
    whole = 'round' if has_rounds(cfg) else 'epoch'
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = args.work_dir or folder
        cfg.experiment_name = f'profile_{int(time.time())}'
        runner = Runner.from_cfg(cfg)
        if whole == 'epoch':
            runner.register_hook(StopAfterEpoch())
        with watching(clock, type(
                runner.model.module
                if is_model_wrapper(runner.model) else runner.model)):
            runner.train()
            clock.stop()
    print(markdown_table(rows(clock, whole)))
    draw(clock, args.out, Path(args.config).stem, whole)
    print(f'written: {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
