"""Scores of candidates: right, shared, and without a trace."""
import copy

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.scorers import (BlockChangeScorer, LossScorer, MetricScorer,
                                 RandomScorer)
from mmblockdrop.scorers.partial_scores import Journal

import pytest
import torch
import toy
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from rounds_kit import EVALUATOR


@pytest.fixture(scope='module')
def parts(trained):
    """Model beside its teacher, scoring batches, evaluator."""
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=toy.localizer(),
            checkpoint=trained))
    model.init_weights()
    batches = Runner.build_dataloader(toy.loader(5, 0))

    def new_evaluator():
        evaluator = Evaluator([dict(EVALUATOR)])
        evaluator.dataset_meta = batches.dataset.metainfo
        return evaluator

    return model, batches, new_evaluator


def score(scorer, parts, dropped=(), candidates=None, model=None):
    """Scores on a model that has lost blocks."""
    _, batches, new_evaluator = parts
    model = model or copy.deepcopy(parts[0])
    stack = BlockStack(model.student, 'backbone.blocks')
    for index in dropped:
        stack.remove(index)
    return scorer(model, stack, candidates or stack.remaining, batches,
                  new_evaluator)


def evaluate(model, parts):
    """Metric of a model as it stands."""
    _, batches, new_evaluator = parts
    evaluator = new_evaluator()
    model.eval()
    with torch.no_grad():
        for batch in batches:
            evaluator.process(model.val_step(batch), batch)
    return evaluator.evaluate(len(batches.dataset))


def task_loss(model, parts):
    """Loss of a model as it stands, averaged over samples."""
    total = 0.
    with torch.no_grad():
        for batch in parts[1]:
            data = model.data_preprocessor(batch, False)
            losses = model.student(**data, mode='loss')
            total += sum(losses.values()).item() * len(data['inputs'])
    return total / len(parts[1].dataset)


@pytest.mark.parametrize('dropped', [[], [2]])
@pytest.mark.parametrize('kind,options', [(MetricScorer, {}),
                                          (LossScorer, {}),
                                          (LossScorer,
                                           dict(with_alignments=True))])
def test_shared_prefix_gives_the_same_bits(parts, kind, options, dropped):
    shared = kind(share_prefix=True, **options)
    plain = kind(share_prefix=False, **options)
    scores = score(shared, parts, dropped)
    assert scores == score(plain, parts, dropped)
    assert len(set(scores.values())) == len(scores), 'a test without power'
    n, batches = toy.DEPTH - len(dropped), len(parts[1])
    assert plain.executions == batches * n * (n - 1)
    assert shared.executions == batches * ((n - 1) + n * (n - 1) // 2)


def test_shared_prefix_with_an_encoder_that_takes_clips_in_chunks(parts):
    model = copy.deepcopy(parts[0])
    model.student.encoder.clip_chunk = 1
    shared = score(LossScorer(), parts, model=model)
    assert shared == score(LossScorer(share_prefix=False), parts, model=model)
    whole = score(LossScorer(), parts)
    for index, value in whole.items():
        assert shared[index] == pytest.approx(value, rel=1e-4)


def test_shared_prefix_with_an_alignment_inside_the_blocks(parts, trained):
    inside = dict(type='mmblockdrop.BlockAlignment', submodule='norm2:input')
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=toy.localizer(),
            checkpoint=trained,
            alignments=dict(inside=inside)))
    model.init_weights()
    scores = [
        score(
            LossScorer(with_alignments=True, share_prefix=share),
            parts,
            model=model) for share in (True, False)
    ]
    assert scores[0] == scores[1]


def test_metric_and_loss_are_those_of_the_shorter_model(parts):
    metric = score(MetricScorer(), parts, [0])
    loss = score(LossScorer(), parts, [0])
    for index in (1, 2, 3):
        model = copy.deepcopy(parts[0])
        stack = BlockStack(model.student, 'backbone.blocks')
        stack.remove(0)
        stack.remove(index)
        assert metric[index] == evaluate(model, parts)['tad/mAP']
        assert loss[index] == pytest.approx(task_loss(model, parts))


def test_alignments_enter_the_loss(parts):
    plain = score(LossScorer(), parts)
    aligned = score(LossScorer(with_alignments=True), parts)
    assert all(aligned[i] > plain[i] + 1e-3 for i in plain)


@pytest.mark.parametrize('kind', [MetricScorer, LossScorer,
                                  BlockChangeScorer])
def test_windows_in_memory_are_not_read_again(parts, kind, tmp_path):

    class Counted(torch.utils.data.Dataset):
        metainfo = parts[1].dataset.metainfo
        reads = 0

        def __len__(self):
            return 5

        def __getitem__(self, index):
            Counted.reads += 1
            return parts[1].dataset[index]

    loader = torch.utils.data.DataLoader(
        Counted(), 1, collate_fn=parts[1].collate_fn)
    expected = score(kind(), (None, loader, parts[2]), model=parts[0])
    scorer = kind(cache_mb=64)
    for number in range(2):  # two rounds
        Counted.reads = 0
        scorer.journal = Journal(tmp_path / str(number), 'key')
        found = score(scorer, (None, loader, parts[2]), model=parts[0])
        assert found == expected
        assert Counted.reads == (0 if number else 5)


def test_block_change_is_the_distance_of_output_and_input(parts):
    scorer = BlockChangeScorer()
    scores = score(scorer, parts, [1])
    model = copy.deepcopy(parts[0]).eval()
    stack = BlockStack(model.student, 'backbone.blocks')
    stack.remove(1)
    seen = {i: [] for i in stack.remaining}
    for i in stack.remaining:
        stack[i].register_forward_hook(
            lambda m, x, y, i=i: seen[i].append((y - x[0]).double()))
    evaluate(model, parts)
    for i, gaps in seen.items():
        wanted = torch.cat([g.flatten() for g in gaps]).square().mean()
        assert scores[i] == pytest.approx(wanted.item())
    assert scorer.executions == 3 * len(parts[1])


def test_protected_blocks_are_not_scored(parts):
    for scorer in (MetricScorer(), LossScorer(), BlockChangeScorer(),
                   RandomScorer()):
        some = score(scorer, parts, candidates=[1, 3])
        every = score(scorer, parts)
        assert some == {i: every[i] for i in (1, 3)}


def test_random_scores_depend_on_the_seed_alone(parts):
    assert score(RandomScorer(3), parts) == score(RandomScorer(3), parts)
    orders = {
        tuple(RandomScorer(s).best(score(RandomScorer(s), parts), 4))
        for s in range(9)
    }
    assert len(orders) > 3


def test_ties_go_to_the_lowest_number():
    scores = {3: 0.5, 1: 0.5, 2: 0.7, 0: 0.1}
    assert MetricScorer().best(scores) == [2]
    assert MetricScorer().best(scores, 3) == [2, 1, 3]
    assert LossScorer().best(scores, 3) == [0, 1, 3]
    assert BlockChangeScorer().best({5: 0., 4: 0.}) == [4]
    assert MetricScorer().best({i: 0. for i in (6, 2, 4)}) == [2]


@pytest.mark.parametrize(
    'scorer',
    [MetricScorer(),
     LossScorer(with_alignments=True),
     BlockChangeScorer()])
def test_model_is_as_before(parts, scorer):
    model = copy.deepcopy(parts[0])
    modules = dict(model.named_modules())
    state = copy.deepcopy(model.state_dict())
    before = evaluate(model, parts)
    score(scorer, parts, model=model)
    untouched(model, modules, state)
    assert evaluate(model, parts) == before


@pytest.mark.parametrize('share_prefix', [True, False])
def test_model_is_as_before_even_after_an_error(parts, share_prefix):
    model, batches, _ = parts
    model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    state = copy.deepcopy(model.state_dict())

    class Full(Evaluator):
        calls = 0

        def process(self, *args):
            Full.calls += 1
            if Full.calls == 6:
                raise OSError('disk full')

    with pytest.raises(OSError):
        MetricScorer(share_prefix=share_prefix)(
            model, BlockStack(model.student, 'backbone.blocks'), [0, 1, 2],
            batches, lambda: Full([dict(EVALUATOR)]))
    untouched(model, modules, state)


def untouched(model, modules, state):
    now = dict(model.named_modules())
    assert list(now) == list(modules)
    assert all(now[name] is modules[name] for name in now)
    for module in now.values():
        assert 'forward' not in module.__dict__
        assert not module._forward_hooks
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_unknown_metric_lists_those_that_are_given(parts):
    with pytest.raises(KeyError) as error:
        score(MetricScorer('tad/map'), parts)
    assert "'tad/map'" in str(error.value)
    assert "'tad/mAP@0.50'" in str(error.value)
