"""Scoring in several goes, and on several processes."""
import json
import os
import traceback

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.scorers import BlockChangeScorer, LossScorer, MetricScorer
from mmblockdrop.scorers.partial_scores import Journal, batches_after

import pytest
import torch
import torch.distributed as dist
import toy
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from rounds_kit import EVALUATOR

VIDEOS, CANDIDATES = 5, [0, 2, 3]


@pytest.fixture(scope='module')
def model(trained):
    """The trained toy localizer."""
    found = MODELS.build(toy.localizer())
    found.load_state_dict(
        torch.load(trained, weights_only=False)['state_dict'])
    return found


def make_batches(size=2):
    cfg = toy.loader(VIDEOS, 0)
    cfg['batch_size'] = size
    return Runner.build_dataloader(cfg)


def score(scorer, model, batches, journal=None):
    """Scores, with a journal or without."""

    def new_evaluator():
        evaluator = Evaluator([dict(EVALUATOR)])
        evaluator.dataset_meta = batches.dataset.metainfo
        return evaluator

    scorer.journal = journal
    return scorer(model, BlockStack(model, 'backbone.blocks'), CANDIDATES,
                  batches, new_evaluator)


class Interrupted(Exception):
    """Stands for the end of a process."""


class Breaking(Journal):
    """Ends after some batches."""

    def __init__(self, *args, batches):
        super().__init__(*args)
        self.batches = batches

    def add(self, state):
        """Keep a state, the last one being the end."""
        super().add(state)
        self.batches -= 1
        if not self.batches:
            raise Interrupted


@pytest.mark.parametrize(
    'kind', [MetricScorer, LossScorer, BlockChangeScorer])
def test_goes_on_after_the_last_finished_batch(model, tmp_path, kind):
    whole = kind()
    wanted = score(whole, model, make_batches())
    for batches in (1, 1):  # interrupted twice, after a batch each time
        with pytest.raises(Interrupted):
            score(kind(), model, make_batches(),
                  Breaking(tmp_path / 'kept', 'key', 0., batches=batches))
    seen = []
    handle = model.backbone.register_forward_pre_hook(
        lambda *args: seen.append(1))
    try:
        rest = kind()
        journal = Journal(tmp_path / 'kept', 'key', 0.)
        assert score(rest, model, make_batches(), journal) == wanted
    finally:
        handle.remove()
    assert len(seen) == (1 if kind is BlockChangeScorer else 3)
    assert rest.executions == whole.executions
    journal.clear()
    assert not (tmp_path / 'kept').exists()


def test_what_is_of_another_scoring_is_not_used(tmp_path):
    first = Journal(tmp_path, ['a', 1], 0.)
    first.add(dict(x=torch.ones(2)))
    kept, = Journal(tmp_path, ['a', 1]).read()
    assert torch.equal(kept['x'], torch.ones(2))
    assert Journal(tmp_path, ['a', 2]).read() == []
    assert not list(tmp_path.glob('*.pt'))


def test_written_every_few_seconds(tmp_path):
    journal = Journal(tmp_path, 'key', 1000.)
    journal.add(1)
    assert Journal(tmp_path, 'key').read() == []
    journal.flush()
    assert Journal(tmp_path, 'key').read() == [1]
    journal.add(2)
    journal.add(3)
    journal.flush()
    assert len(list(tmp_path.glob('*.pt'))) == 2
    assert Journal(tmp_path, 'key').read() == [1, 2, 3]


def test_broken_file_ends_what_is_used(tmp_path):
    journal = Journal(tmp_path, 'key', 0.)
    for state in (1, 2, 3):
        journal.add(state)
    second = sorted(tmp_path.glob('*.pt'))[1]
    second.write_bytes(second.read_bytes()[:50])
    assert Journal(tmp_path, 'key').read() == [1]
    assert len(list(tmp_path.glob('*.pt'))) == 1


def test_code_in_a_file_is_not_run(tmp_path):
    journal = Journal(tmp_path, 'key', 0.)
    journal.add(1)
    path, = tmp_path.glob('*.pt')

    class Trap:

        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trace'), )

    torch.save(dict(key=journal.key, first=0, states=[Trap()]), path)
    assert Journal(tmp_path, 'key').read() == []
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('done', [1, 3])
def test_first_batches_are_not_read(done):
    batches = make_batches()
    read = []

    class Counting(toy.ToyVideos):

        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    batches.dataset.__class__ = Counting
    rest = list(batches_after(batches, done))
    assert len(rest) == 3 - done
    assert read == list(range(2 * done, VIDEOS))


def in_two_processes(tmp_path, work):
    """What two forked processes of a group give.

    Args:
        work: Called with the rank; returns what JSON can hold.
    """
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                dist.init_process_group(
                    'gloo',
                    init_method=f'file://{tmp_path / "store"}',
                    rank=rank,
                    world_size=2)
                (tmp_path / f'{rank}.json').write_text(json.dumps(work(rank)))
                dist.barrier()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return [
        json.loads((tmp_path / f'{rank}.json').read_text())
        for rank in range(2)
    ]


@pytest.mark.parametrize(
    'kind', [MetricScorer, LossScorer, BlockChangeScorer])
def test_two_processes_score_an_odd_number_as_one(model, tmp_path, kind):
    """The sampler repeats a video for the second process."""
    alone = score(kind(), model, make_batches(1))

    def work(rank):
        batches = make_batches(1)
        assert len(batches) * 2 == VIDEOS + 1
        scorer = kind()
        scores = score(scorer, model, batches)
        return {str(i): s for i, s in scores.items()}

    first, second = in_two_processes(tmp_path, work)
    assert first == second
    assert {int(i): s
            for i, s in first.items()} == pytest.approx(alone, rel=1e-12)


def test_two_processes_go_on_from_the_same_batch(tmp_path):

    def work(rank):
        journal = Journal(tmp_path / 'kept', 'key', 0.)
        for state in range(3 + rank):
            journal.add([rank, state])
        dist.barrier()
        again = Journal(tmp_path / 'kept', 'key', 0.)
        found = again.read()
        again.add('next')
        dist.barrier()
        return [found, Journal(tmp_path / 'kept', 'key', 0.).read()]

    for rank, (found, later) in enumerate(in_two_processes(tmp_path, work)):
        assert found == [[rank, 0], [rank, 1], [rank, 2]]
        assert later == [*found, 'next']
