"""Racing: who leaves, what those left score, and the same everywhere."""
import copy
import multiprocessing

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS, SCORERS
from mmblockdrop.scorers import LossScorer, MetricScorer, RacingScorer
from mmblockdrop.scorers.batches import ShuffledBatches
from mmblockdrop.scorers.partial_scores import Journal
from mmblockdrop.scorers.racing.bounds import BOUNDS, radius, student_quantile
from mmblockdrop.scorers.racing.race import Race

import numpy as np
import pytest
import torch
import toy
from mmengine.dist import init_dist
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from rounds_kit import EVALUATOR
from torch import nn


# ------------------------------------------------------------------- bounds
def test_student_quantile_is_that_of_the_tables():
    for probability, freedom, wanted in ((0.95, 5, 2.015), (0.975, 1, 12.706),
                                         (0.995, 10, 3.169),
                                         (0.999, 30, 3.385)):
        found = student_quantile(probability, freedom)
        assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize('bound', BOUNDS)
def test_a_mean_is_outside_its_radius_as_seldom_as_promised(bound):
    rng = np.random.default_rng(0)
    values, delta, missed = rng.beta(2, 5, 60), 0.1, 0
    for _ in range(200):
        part = rng.permutation(values)[:20]
        far = radius(part, 60, delta, bound, width=1.)
        missed += part.mean() - values.mean() > far
    assert missed <= 200 * delta * 1.5
    assert (bound == 'student') == (missed > 0), 'only t is that tight here'


@pytest.mark.parametrize('bound', BOUNDS)
def test_the_radius_shrinks_to_nothing(bound):
    values = np.random.default_rng(1).random(40)
    sizes = [radius(values[:n], 40, 0.1, bound, 1.) for n in (3, 10, 25, 39)]
    assert sizes == sorted(sizes, reverse=True)
    assert radius(values, 40, 0.1, bound, 1.) == 0
    assert radius(values[:1], 40, 0.1, bound, 1.) >= 1


# --------------------------------------------------------------------- race
def run_race(table, **settings):
    """Race over a table of values, [candidates, batches]."""
    total = table.shape[1]
    options = dict(higher_is_better=True, delta=0.05, bound='student',
                   width=1., keep=1, checks=range(4, total, 4))
    race = Race(range(len(table)), total, **{**options, **settings})
    for seen in race.checks:
        race.check({i: table[i, :seen] for i in race.left})
    return race


def test_the_best_is_seldom_lost_and_others_leave_early():
    rng = np.random.default_rng(2)
    lost = left = 0
    for _ in range(30):
        hard = rng.normal(0, 1, 40)  # a batch is hard for all alike
        skill = rng.normal(0, 0.3, (8, 1))
        table = skill + hard + rng.normal(0, 0.2, (8, 40))
        race = run_race(table)
        lost += int(table.mean(1).argmax()) not in race.left
        left += len(race.left)
    assert lost <= 2
    assert left < 30 * 4
    assert all(gone.gap > 0 for gone in race.lost)


def test_without_correction_others_leave_sooner():
    rng = np.random.default_rng(7)
    table = np.linspace(0, 0.3, 8)[:, None] + rng.normal(0, 0.2, (8, 40))
    careful, bold = (run_race(table, checks=(8, 12), corrected=x)
                     for x in (True, False))
    assert set(bold.left) < set(careful.left)
    assert RacingScorer(growth=1).checks(8) == [4, 5, 6, 7]


def test_the_direction_and_the_number_that_stay():
    table = np.arange(5.)[:, None] + np.random.default_rng(3).normal(
        0, 0.1, (5, 20))
    assert run_race(table).left == [4]
    assert run_race(table, higher_is_better=False).left == [0]
    assert run_race(table, keep=3).left == [2, 3, 4]
    # The bounds without assumption know the range only.
    loose = run_race(table / 5, bound='hoeffding')
    assert 4 in loose.left and len(loose.left) > 1


def test_halving_ends_after_so_many_checks():
    table = np.random.default_rng(6).normal(0, 1, (12, 64))
    race = run_race(table, bound='halving', checks=(8, 16, 32))
    assert len(race.left) == 2
    assert [len(race.lost), race.lost[0].gap > race.lost[5].gap] == [10, True]
    third = next(gone for gone in reversed(race.lost)).number
    means = table[:, :32].mean(1)
    assert all(means[i] > means[third] for i in race.left)
    flat = run_race(np.zeros((4, 64)), bound='halving', checks=(8, 16))
    assert flat.left == [0] and all(gone.gap > 0 for gone in flat.lost)
    assert RacingScorer(bound='halving').checks(64) == [8, 16, 32]
    assert RacingScorer().checks(16) == [4, 6, 9, 14]


def test_batches_that_tell_nothing_are_left_out():
    table = np.random.default_rng(4).normal(0, 0.1, (3, 20))
    table += np.array([[0.], [1.], [2.]])
    table[:, ::3] = np.nan
    assert run_race(table).left == [2]


# ------------------------------------------------------------------- scorer
@pytest.fixture(scope='module')
def parts(trained):
    """Model beside its teacher, scoring batches, evaluator."""
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=toy.localizer(),
            checkpoint=trained))
    model.init_weights()
    batches = Runner.build_dataloader(toy.loader(12, 0))

    def new_evaluator():
        evaluator = Evaluator([dict(EVALUATOR)])
        evaluator.dataset_meta = batches.dataset.metainfo
        return evaluator

    return model, batches, new_evaluator


def score(scorer, parts, batches=None):
    """Scores of all blocks."""
    model, own, new_evaluator = parts
    stack = BlockStack(model.student, 'backbone.blocks')
    return scorer(model, stack, stack.remaining, batches or own, new_evaluator)


@pytest.mark.parametrize('exact', [MetricScorer(), LossScorer()])
def test_those_at_the_end_have_the_exact_score(parts, exact):
    criterion = 'loss' if isinstance(exact, LossScorer) else 'metric'
    wanted = score(exact, parts)
    scorer = RacingScorer(criterion=criterion, delta=1e-12)
    assert score(scorer, parts) == wanted
    assert scorer.executions == exact.executions
    assert scorer.best(wanted) == exact.best(wanted)
    two = RacingScorer(criterion=criterion, first=2, keep=2)
    raced = score(two, parts)
    whole = [i for i, seen in two.seen.items() if seen == 6]
    assert all(raced[i] == wanted[i] for i in whole)


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


def test_a_race_is_shorter_and_its_scores_are_in_order():
    # Without block 2 the loss is lowest; without 3 it is close on average.
    model = SumOfBlocks([(1., 0.), (2., 0.), (4., 0.), (3.75, 1.)])
    stack = BlockStack(model, 'blocks')
    batches = [
        dict(inputs=[torch.tensor([8., sign])], data_samples=[None])
        for sign in (1., -1.) * 4
    ]
    exact = LossScorer()
    wanted = exact(model, stack, stack.remaining, batches, None)
    scorer = RacingScorer(criterion='loss', first=3, delta=0.2)
    found = scorer(model, stack, stack.remaining, batches, None)
    assert scorer.executions < exact.executions
    assert scorer.seen[0] < scorer.seen[2] == scorer.seen[3] == 8
    assert scorer.best(found) == exact.best(wanted) == [2]
    assert found[2] == wanted[2] and found[3] == wanted[3]
    assert sorted(found, key=found.get) == [2, 3, 1, 0]


def test_the_same_again_and_nothing_is_read_twice(parts):
    class Counted(torch.utils.data.Dataset):
        metainfo = parts[1].dataset.metainfo
        reads = 0

        def __len__(self):
            return 12

        def __getitem__(self, index):
            Counted.reads += 1
            return parts[1].dataset[index]

    batches = torch.utils.data.DataLoader(
        Counted(), 2, collate_fn=parts[1].collate_fn)
    scorer = RacingScorer(first=2)
    first = score(scorer, parts, batches)
    reads = Counted.reads
    assert score(scorer, parts, batches) == first
    assert Counted.reads == reads <= 12
    assert score(RacingScorer(first=2, cache_mb=0), parts) == first


def test_batches_are_those_of_the_loader_in_another_order(parts):
    kept = ShuffledBatches(parts[1], seed=3, cache_mb=0.03)
    for _ in range(2):
        pairs = list(kept)
        assert sorted(place for place, _ in pairs) == list(range(6))
        assert [place for place, _ in pairs] != list(range(6))
        for place, batch in pairs:
            whole = list(parts[1])[place]
            assert all(map(torch.equal, batch['inputs'], whole['inputs']))
    assert 6 < kept.read < 12, 'some fit into the memory'


def test_the_shortlist_holds_what_changes_least(parts):
    model = copy.deepcopy(parts[0])
    with torch.no_grad():
        for i in (1, 3):
            block = model.student.backbone.blocks[i]
            block.attn.proj.weight.mul_(0.01)
            block.mlp.layers[1].weight.mul_(0.01)
    scorer = RacingScorer(shortlist=2, delta=1e-9)
    exact = score(MetricScorer(), (model, *parts[1:]))
    found = score(scorer, (model, *parts[1:]))
    assert found == {i: exact[i] for i in (1, 3)}
    assert scorer.executions == 2 * toy.DEPTH + 6 * (3 + 2)


def test_an_interrupted_race_goes_on(parts, tmp_path):
    settings = dict(first=2, delta=0.3)
    whole = RacingScorer(**settings)
    wanted = score(whole, parts)
    ran = []

    class Full(Evaluator):
        limit = 9

        def process(self, *args):
            ran.append(self)
            if len(ran) == Full.limit:
                raise OSError('disk full')
            super().process(*args)

    def new_evaluator():
        evaluator = Full([dict(EVALUATOR)])
        evaluator.dataset_meta = parts[1].dataset.metainfo
        return evaluator

    scorer = RacingScorer(**settings)
    scorer.journal = Journal(tmp_path / 'kept', 'key', every=0.)
    rest = (*parts[:2], new_evaluator)
    with pytest.raises(OSError):
        score(scorer, rest)
    again = RacingScorer(**settings)
    again.journal = Journal(tmp_path / 'kept', 'key', every=0.)
    before, Full.limit = len(ran), None
    assert score(again, rest) == wanted
    assert again.executions == whole.executions
    assert again.seen == whole.seen
    assert len(ran) - before == sum(whole.seen.values()) - 8


def test_bad_settings_are_named():
    build = SCORERS.build
    kind = dict(type='mmblockdrop.RacingScorer')
    with pytest.raises(ValueError, match="scorer.criterion.*'metric'"):
        build(dict(kind, criterion='metrics'))
    with pytest.raises(ValueError, match="bound.*did you mean 'student'"):
        build(dict(kind, bound='students'))
    with pytest.raises(ValueError, match='needs scorer.value_range'):
        build(dict(kind, criterion='loss', bound='hoeffding'))
    with pytest.raises(ValueError, match='scorer.shortlist is 1'):
        build(dict(kind, shortlist=1))
    with pytest.raises(ValueError, match='scorer.delta=1.5'):
        build(dict(kind, delta=1.5))
    with pytest.raises(ValueError, match='scorer.growth=0.5 at least 1'):
        build(dict(kind, growth=0.5))


def test_an_unknown_metric_lists_those_that_are_given(parts):
    with pytest.raises(KeyError, match='tad/mAP@0.50'):
        score(RacingScorer(metric='tad/map'), parts)


# ------------------------------------------------------------ two processes
def race_in_process(rank, port, parts, criterion, results):
    """One of two processes; each sees half of the batches."""
    torch.set_num_threads(1)
    import os
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    init_dist('pytorch', backend='gloo')
    batches = Runner.build_dataloader(toy.loader(12, 0))
    scorer = RacingScorer(criterion=criterion, first=2, delta=0.2)
    found = score(scorer, parts, batches)
    results.put((found, scorer.seen, len(batches)))


@pytest.mark.parametrize('criterion', ['metric', 'loss'])
def test_two_processes_decide_alike(parts, criterion):
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    port = 29650 + (criterion == 'loss')
    workers = [
        context.Process(
            target=race_in_process,
            args=(rank, port, parts, criterion, results)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    first, second = (results.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    assert first == second
    assert first[2] == 3, 'each process has half'
