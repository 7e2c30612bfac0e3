"""Scoring in several goes, and on several processes."""
import os

from mmblockdrop.registry import MODELS
from mmblockdrop.scorers import (BlockChangeScorer, LossScorer, MetricScorer,
                                 RacingScorer)
from mmblockdrop.scorers.partial_scores import PartialScores, batches_at

import pytest
import torch
import torch.distributed as dist
import toy
from scorers_kit import make_batches, make_context
from two_processes import in_two_processes

VIDEOS, CANDIDATES = 5, [0, 2, 3]


@pytest.fixture(scope='module')
def model(trained):
    """The trained toy localizer."""
    found = MODELS.build(toy.localizer())
    found.load_state_dict(
        torch.load(trained, weights_only=False)['state_dict'])
    return found


def score(scorer, model, batches, kept=None):
    """Scores, with partial scores on disk or without."""
    return scorer(
        make_context(
            model, batches, candidates=CANDIDATES, partial_scores=kept))


class Interrupted(Exception):
    """Stands for the end of a process."""


class Breaking(PartialScores):
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
    'kind', [MetricScorer, LossScorer, BlockChangeScorer, RacingScorer])
def test_goes_on_after_the_last_finished_batch(model, tmp_path, kind):
    whole = kind()
    wanted = score(whole, model, make_batches(VIDEOS))
    for batches in (1, 1):  # interrupted twice, after a batch each time
        with pytest.raises(Interrupted):
            score(kind(), model, make_batches(VIDEOS),
                  Breaking(tmp_path / 'kept', 'key', 0., batches=batches))
    seen = []
    handle = model.backbone.register_forward_pre_hook(
        lambda *args: seen.append(1))
    try:
        rest = kind()
        kept = PartialScores(tmp_path / 'kept', 'key', 0.)
        assert score(rest, model, make_batches(VIDEOS), kept) == wanted
    finally:
        handle.remove()
    assert len(seen) == (1 if kind is BlockChangeScorer else 3)
    assert rest.executions == whole.executions
    kept.clear()
    assert not (tmp_path / 'kept').exists()


def test_what_is_of_another_scoring_is_not_used(tmp_path):
    first = PartialScores(tmp_path, ['a', 1], 0.)
    first.add(dict(x=torch.ones(2)))
    state, = PartialScores(tmp_path, ['a', 1]).read()
    assert torch.equal(state['x'], torch.ones(2))
    assert PartialScores(tmp_path, ['a', 2]).read() == []
    assert not list(tmp_path.glob('*.pt'))


def test_written_every_few_seconds(tmp_path):
    kept = PartialScores(tmp_path, 'key', 1000.)
    kept.add(1)
    assert PartialScores(tmp_path, 'key').read() == []
    kept.flush()
    assert PartialScores(tmp_path, 'key').read() == [1]
    kept.add(2)
    kept.add(3)
    kept.flush()
    assert len(list(tmp_path.glob('*.pt'))) == 2
    assert PartialScores(tmp_path, 'key').read() == [1, 2, 3]


def test_broken_file_ends_what_is_used(tmp_path):
    kept = PartialScores(tmp_path, 'key', 0.)
    for state in (1, 2, 3):
        kept.add(state)
    second = sorted(tmp_path.glob('*.pt'))[1]
    second.write_bytes(second.read_bytes()[:50])
    assert PartialScores(tmp_path, 'key').read() == [1]
    assert len(list(tmp_path.glob('*.pt'))) == 1


def test_flipped_bits_are_noticed(tmp_path):
    kept = PartialScores(tmp_path, 'key', 0.)
    kept.add(dict(sums={0: [(0.5, 2)]}, big=torch.zeros(4096)))
    path, = tmp_path.glob('*.pt')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert PartialScores(tmp_path, 'key').read() == []


@pytest.mark.parametrize('name', ['rank0_first.pt', 'rank0_00000000.pt'])
def test_files_that_are_something_else_are_not_used(tmp_path, name):
    folder = tmp_path / 'kept'
    for write in (lambda path: path.write_text('text'),
                  lambda path: torch.save(['a', 'list'], path)):
        folder.mkdir()
        write(folder / name)
        assert PartialScores(folder, 'key').read() == []


def test_code_in_a_file_is_not_run(tmp_path):
    kept = PartialScores(tmp_path, 'key', 0.)
    kept.add(1)
    path, = tmp_path.glob('*.pt')

    class Trap:

        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trace'), )

    torch.save(dict(key=kept.key, first=0, states=[Trap()]), path)
    assert PartialScores(tmp_path, 'key').read() == []
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('done', [1, 3])
def test_first_batches_are_not_read(done):
    batches = make_batches(VIDEOS)
    read = []

    class Counting(toy.ToyVideos):

        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    batches.dataset.__class__ = Counting
    rest = list(batches_at(batches, range(done, 3)))
    assert len(rest) == 3 - done
    assert read == list(range(2 * done, VIDEOS))


@pytest.mark.parametrize(
    'kind', [MetricScorer, LossScorer, BlockChangeScorer])
def test_two_processes_score_an_odd_number_as_one(model, tmp_path, kind):
    """The sampler repeats a video for the second process."""
    alone = score(kind(), model, make_batches(VIDEOS, 1))

    def work(rank):
        batches = make_batches(VIDEOS, 1)
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
        kept = PartialScores(tmp_path / 'kept', 'key', 0.)
        for state in range(3 + rank):
            kept.add([rank, state])
        dist.barrier()
        again = PartialScores(tmp_path / 'kept', 'key', 0.)
        found = again.read()
        again.add('next')
        dist.barrier()
        return [found, PartialScores(tmp_path / 'kept', 'key', 0.).read()]

    for rank, (found, later) in enumerate(in_two_processes(tmp_path, work)):
        assert found == [[rank, 0], [rank, 1], [rank, 2]]
        assert later == [*found, 'next']
