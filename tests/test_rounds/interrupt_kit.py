"""Runs that are killed or broken at chosen points, each in a process.

``python interrupt_kit.py CHECKPOINT FOLDER POINT ...`` imports the stack
once. For every point a forked process runs two rounds until the point ends
it, and another one goes on with ``resume=True``. ``FOLDER/whole`` is the
uninterrupted run. The environment variable ``STRUCTURE`` names what is cut.
"""
import json
import logging
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmblockdrop.compression import add_lora
from mmblockdrop.registry import MODELS
from mmblockdrop.rounds import (BlockDropHook, DistillationLoop,
                                FiniteLossHook, evaluator, hook, loop)
from mmblockdrop.rounds.student import Student
from mmblockdrop.scorers import partial_scores
from mmblockdrop.scorers.partial_scores import PartialScores

import torch
import toy
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rounds_kit import count_only, sharpen


def die(*args, **kwargs):
    """End this process at once, as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name, nth, then=die):
    """Call ``then`` after the n-th call of a function."""
    plain, calls = getattr(owner, name), []

    def patched(*args, **kwargs):
        result = plain(*args, **kwargs)
        calls.append(name)
        if len(calls) == nth:
            then(*args, **kwargs)
        return result

    setattr(owner, name, patched)


def before(owner, name, nth, then=die):
    """Call ``then`` before the n-th call of a function."""
    plain, calls = getattr(owner, name), []

    def patched(*args, **kwargs):
        calls.append(name)
        if len(calls) == nth:
            then(*args, **kwargs)
        return plain(*args, **kwargs)

    setattr(owner, name, patched)


def half_a_checkpoint(name):
    """Die in the middle of writing a checkpoint."""
    plain = LocalBackend.put

    def put(backend, content, path):
        if name in str(path):
            Path(path).write_bytes(bytes(content)[:len(content) // 2])
            die()
        plain(backend, content, path)

    LocalBackend.put = put


def before_saving(name):
    """Die before the weights of a round are written."""
    plain = DistillationLoop.save
    DistillationLoop.save = lambda loop, file: die(
    ) if file == name else plain(loop, file)


def half_a_record(nth):
    """Die in the middle of writing the n-th ``blockdrop.json``."""

    def half(content, path):
        text = json.dumps(content, indent=2)
        path.with_name(f'{path.name}.tmp').write_text(text[:len(text) // 2])
        die()

    before(hook, 'write_json', nth, half)


class AtIteration(Hook):
    """Do something to the runner before an iteration of the run."""

    def __init__(self, iteration, then):
        self.iteration, self.then = iteration, then

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.then(runner)


def no_number(runner):
    for parameter in runner.model.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(float('nan'))


def no_room(runner):
    record = Path(runner.work_dir) / 'blockdrop.json'
    limit_files(3 * record.stat().st_size)


def limit_files(size):
    """Let no file grow beyond a size in bytes; -1 lifts the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def no_folder(runner):
    shutil.rmtree(runner.work_dir)


#: Four iterations an epoch, two epochs a round. In a round the record is
#: written when scored, when dropped, for each epoch and at the end.
POINTS = dict(
    whole=lambda: None,
    scoring=lambda: after(PartialScores, 'flush', 3),
    between_record_and_drop=lambda: before(BlockDropHook, 'drop', 3),
    after_the_drop=lambda: after(BlockDropHook, 'drop', 3),
    in_an_epoch=lambda: after(FiniteLossHook, 'after_train_iter', 10),
    writing_a_checkpoint=lambda: half_a_checkpoint('epoch_3.pth'),
    writing_the_only_checkpoint=lambda: half_a_checkpoint('epoch_2.pth'),
    before_the_epoch_is_judged=lambda: before(DistillationLoop,
                                              'judge_epoch', 2),
    best_epoch_written=lambda: after(
        DistillationLoop, 'save', 2,
        lambda *args: before(BlockDropHook, 'write', 1)),
    between_merge_and_record=lambda: after(Student, 'load', 1),
    between_record_and_checkpoint=lambda: before_saving('round_1.pth'),
    writing_the_record=lambda: half_a_record(6),
    after_a_round=lambda: after(DistillationLoop, 'report_round', 1),
    no_number=lambda: AtIteration(13, no_number),
    no_room=lambda: AtIteration(9, no_room),
    no_folder=lambda: AtIteration(9, no_folder),
)


def run(checkpoint, work_dir, point, resume):
    """Run two rounds; what ends them with an error is written down."""
    cfg = sharpen(toy.block_drop(work_dir, checkpoint, resume=resume))
    cfg.custom_hooks[0].structure = os.environ.get(
        'STRUCTURE', 'mmblockdrop.BlockStack')
    if point == 'writing_the_only_checkpoint':
        cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.3))
    cfg.experiment_name = f'{point}_{resume}'
    runner = Runner.from_cfg(cfg)
    added = None if resume else POINTS[point]()
    if isinstance(added, Hook):
        runner.register_hook(added, 'VERY_LOW')
    elif resume:
        done = []
        plain = PartialScores.read

        def read(kept):
            states = plain(kept)
            done.append(len(states))
            (work_dir / 'batches_before.json').write_text(json.dumps(done))
            return states

        PartialScores.read = read
    try:
        runner.train()
        (work_dir.parent / f'{point}_from.txt').write_text(
            str(runner._load_from))
    except Exception as error:
        if work_dir.is_dir():
            limit_files(resource.RLIM_INFINITY)
        (work_dir.parent / f'{point}.txt').write_text(
            f'{type(error).__name__}: {error}')
        os._exit(1)


def forked(*args):
    """Run in a process of its own.

    Returns:
        Its exit status, negative for a signal.
    """
    child = os.fork()
    if child == 0:
        try:
            run(*args)
        except BaseException as error:
            print(args, repr(error), file=sys.stderr)
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(checkpoint, folder, *points):
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    evaluator.measure = count_only
    loop.write_report = lambda *args: None
    partial_scores.INTERVAL = 0.
    toy_model = MODELS.build(toy.localizer())  # imports what runs need
    add_lora(toy_model.backbone.blocks, rank=2)
    ended = {}
    for point in points:
        work_dir = Path(folder) / point
        ended[point] = [forked(checkpoint, work_dir, point, False)]
        if ended[point][0] and work_dir.is_dir():
            ended[point].append(forked(checkpoint, work_dir, point, True))
    (Path(folder) / 'ended.json').write_text(json.dumps(ended))


if __name__ == '__main__':
    main(*sys.argv[1:])
