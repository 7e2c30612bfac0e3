"""Racing: who leaves, what those left score, and the same everywhere."""
import multiprocessing
import os

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import SCORERS
from mmblockdrop.scorers import (CandidateResults, LossScorer, RacingScorer,
                                 ScoringContext)
from mmblockdrop.scorers.partial_scores import PartialScores
from mmblockdrop.scorers.racing import Race

import numpy as np
import pytest
import torch
from mmengine.dist import init_dist
from mmengine.model import BaseModel
from scorers_kit import make_batches, make_context
from torch import nn


# --------------------------------------------------------------------- race
def run_race(table, first=4, delta=0.02, keep=1):
    """Race over a table of losses, [candidates, batches]."""
    results = CandidateResults(range(len(table)))
    race = Race(results, table.shape[1], first, delta, keep)
    for seen, column in enumerate(table.T, 1):
        for i in race.remaining:
            results.add(i, float(column[i]), 1)
        race.check(seen)
    return race


def test_a_mean_is_outside_its_radius_as_seldom_as_promised():
    rng = np.random.default_rng(0)
    values, delta, missed = rng.beta(2, 5, 60), 0.1, 0
    race = Race(CandidateResults([]), 60, 4, delta, 1)
    for _ in range(200):
        part = rng.permutation(values)[:20]
        missed += part.mean() - values.mean() > race.radius(part)
    assert 0 < missed <= 200 * delta * 1.5


def test_the_radius_shrinks_to_nothing():
    values = np.random.default_rng(1).random(40)
    race = Race(CandidateResults([]), 40, 4, 0.1, 1)
    sizes = [race.radius(values[:n]) for n in (3, 10, 25, 39)]
    assert sizes == sorted(sizes, reverse=True)
    assert race.radius(values) == 0
    assert race.radius(values[:1]) == float('inf')


def test_the_radius_is_that_of_the_tables():
    """t = 2.015 at 95 % and 5 degrees of freedom."""
    race = Race(CandidateResults([]), 10**9, 4, 0.05, 1)
    values = np.array([1., -1.] * 3)
    assert race.radius(values) == pytest.approx(2.015 / 5**0.5, rel=1e-3)


def test_the_best_is_seldom_lost_and_others_leave_early():
    rng = np.random.default_rng(2)
    lost = left = 0
    for _ in range(30):
        hard = rng.normal(0, 1, 40)  # a batch is hard for all alike
        skill = rng.normal(0, 0.3, (8, 1))
        table = skill + hard + rng.normal(0, 0.2, (8, 40))
        race = run_race(table)
        lost += int(table.mean(1).argmin()) not in race.remaining
        left += len(race.remaining)
        assert all(gone.gap > 0 for gone in race.lost)
    assert lost <= 2
    assert left < 30 * 4


def test_the_lowest_wins_and_so_many_stay():
    table = np.arange(5.)[:, None] + np.random.default_rng(3).normal(
        0, 0.1, (5, 20))
    assert run_race(table).remaining == [0]
    assert run_race(-table).remaining == [4]
    assert run_race(table, keep=3).remaining == [0, 1, 2]


def test_a_smaller_delta_keeps_more():
    table = np.linspace(0, 0.3, 8)[:, None] + np.random.default_rng(7).normal(
        0, 0.2, (8, 40))
    careful, bold = (run_race(table, delta=delta) for delta in (1e-4, 0.1))
    seen = [
        sum(map(len, race.results.sums.values())) for race in (careful, bold)
    ]
    assert 8 * 40 >= seen[0] > seen[1]


# ------------------------------------------------------------------- scorer
@pytest.fixture(scope='module')
def context(shared_wrapper):
    """All blocks, on six batches."""
    return make_context(shared_wrapper, make_batches(12))


def test_those_at_the_end_have_the_exact_score(context):
    exact = LossScorer()
    wanted = exact(context)
    scorer = RacingScorer(delta=1e-12)
    assert scorer(context) == wanted
    assert scorer.executions == exact.executions
    assert scorer.best(wanted) == exact.best(wanted)


class Added(nn.Module):
    """Block that adds ``amount + swing * sign`` to the loss of a sample."""

    def __init__(self, amount, swing):
        super().__init__()
        self.amount, self.swing = amount, swing

    def forward(self, x):
        loss, sign = x.unbind(-1)
        return torch.stack((loss + self.amount + self.swing * sign, sign), -1)


class SumOfBlocks(BaseModel):
    """Its loss is a sum of numbers that every processor adds exactly."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.Sequential(*(Added(*block) for block in blocks))

    def forward(self, inputs, data_samples, mode):
        return dict(loss=self.blocks(torch.stack(inputs))[:, 0].mean())


class Signs(torch.utils.data.Dataset):
    """Samples of alternating sign; counts what is read."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.reads += 1
        return torch.tensor([8., (-1.)**index])


def collate(samples):
    """Lists, as detectors take them."""
    return dict(inputs=list(samples), data_samples=[None] * len(samples))


def make_sum(drops=1, partial_scores=None):
    """Without block 2 the loss is lowest; without 3 it is close on average."""
    model = SumOfBlocks([(1., 0.), (2., 0.), (4., 0.), (3.75, 1.)])
    stack = BlockStack(model, 'blocks')
    batches = torch.utils.data.DataLoader(Signs(), 1, collate_fn=collate)
    return ScoringContext(model, stack, stack.candidates(), batches,
                          lambda: None, drops, partial_scores)


def test_a_race_is_shorter_and_its_scores_are_in_order():
    exact = LossScorer()
    wanted = exact(make_sum())
    scorer = RacingScorer(first=3, delta=0.2)
    found = scorer(make_sum())
    assert scorer.executions < exact.executions
    assert scorer.seen[0] < 8 and scorer.seen[2] == max(scorer.seen.values())
    assert scorer.best(found) == exact.best(wanted) == [2]
    assert list(found) == [0, 1, 2, 3]
    assert sorted(found, key=found.get) == [2, 3, 1, 0]


def test_as_many_stay_as_the_round_drops():
    scorer = RacingScorer(first=3, delta=0.2)
    for drops in (2, 3):
        context = make_sum(drops)
        scores = scorer(context)
        assert context.batches.dataset.reads == max(
            scorer.seen.values()) < 8
        assert {*scorer.best(scores, drops)} == {*[2, 3, 1][:drops]}


def test_the_same_again():
    scorer = RacingScorer(first=2, seed=3)
    assert scorer(make_sum()) == scorer(make_sum())


def test_a_list_of_batches(context):
    scorer = RacingScorer(first=2)
    wanted, executions = scorer(context), scorer.executions
    listed = list(context.batches)
    again = ScoringContext(context.model, context.structure,
                           context.candidates, listed, context.new_evaluator)
    assert scorer(again) == wanted and scorer.executions == executions


class Full(PartialScores):
    """Ends after some batches."""

    left = 0

    def add(self, state):
        super().add(state)
        self.left -= 1
        if not self.left:
            raise OSError('disk full')


@pytest.mark.parametrize('batches', [2, 4])
def test_an_interrupted_race_goes_on(tmp_path, batches):
    settings = dict(first=3, delta=0.05)
    whole = RacingScorer(**settings)
    context = make_sum()
    wanted = whole(context)
    assert context.batches.dataset.reads > batches
    full = Full(tmp_path / 'kept', 'key', every=0.)
    full.left = batches
    with pytest.raises(OSError):
        RacingScorer(**settings)(make_sum(partial_scores=full))
    again = RacingScorer(**settings)
    rest = make_sum(
        partial_scores=PartialScores(tmp_path / 'kept', 'key', every=0.))
    assert again(rest) == wanted
    assert again.executions == whole.executions
    assert again.seen == whole.seen
    assert rest.batches.dataset.reads == (
        context.batches.dataset.reads - batches)


@pytest.mark.parametrize('key,value', [('delta', 1.5), ('delta', 0.),
                                       ('first', 1), ('first', 2.5)])
def test_bad_settings_are_named(key, value):
    with pytest.raises(ValueError, match=f'scorer.{key}={value}'):
        SCORERS.build({'type': 'mmblockdrop.RacingScorer', key: value})


# ------------------------------------------------------------ two processes
def race_in_process(rank, port, model, results):
    """One of two processes; each sees half of the batches."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    init_dist('pytorch', backend='gloo')
    batches = make_batches(12)
    scorer = RacingScorer(first=2, delta=0.2)
    found = scorer(make_context(model, batches))
    results.put((found, scorer.seen, len(batches)))


def test_two_processes_decide_alike(shared_wrapper):
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [
        context.Process(
            target=race_in_process,
            args=(rank, 29651, shared_wrapper, results)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    first, second = (results.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    assert first == second
    assert first[2] == 3, 'each process has half'
