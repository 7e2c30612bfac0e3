"""Scores of candidates: right, shared, and without a trace."""
import copy

from mmblockdrop.compression import BlockStack, HalfBlocks
from mmblockdrop.registry import MODELS, SCORERS
from mmblockdrop.scorers import (BlockChangeScorer, CandidateResults,
                                 LossScorer, MetricScorer, RandomScorer)
from mmblockdrop.scorers.base import pick, require_finite

import pytest
import torch
import toy
from mmengine.evaluator import Evaluator
from scorers_kit import EVALUATOR, make_batches, make_context


@pytest.fixture(scope='module')
def batches():
    """Five videos in three batches."""
    return make_batches(5)


@pytest.fixture
def model(shared_wrapper):
    """Student and teacher, to be changed."""
    return copy.deepcopy(shared_wrapper)


def score(scorer, model, batches, *args):
    """Scores, of a model that has lost blocks."""
    return scorer(make_context(copy.deepcopy(model), batches, *args))


def evaluate(model, batches):
    """Metric of a model as it stands."""
    evaluator = make_context(model, batches).new_evaluator()
    model.eval()
    with torch.no_grad():
        for batch in batches:
            evaluator.process(model.val_step(batch), batch)
    return evaluator.evaluate(len(batches.dataset))


def task_loss(model, batches):
    """Loss of a model as it stands, averaged over samples."""
    total = 0.
    with torch.no_grad():
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            losses = model.student(**data, mode='loss')
            total += sum(losses.values()).item() * len(data['inputs'])
    return total / len(batches.dataset)


@pytest.mark.parametrize('dropped', [[], [2]])
@pytest.mark.parametrize('kind,options', [(MetricScorer, {}),
                                          (LossScorer, {}),
                                          (LossScorer,
                                           dict(with_alignments=True))])
def test_shared_prefix_gives_the_same_bits(model, batches, kind, options,
                                           dropped):
    shared = kind(share_prefix=True, **options)
    plain = kind(share_prefix=False, **options)
    scores = score(shared, model, batches, dropped)
    assert scores == score(plain, model, batches, dropped)
    assert len(set(scores.values())) == len(scores), 'a test without power'
    n, count = toy.DEPTH - len(dropped), len(batches)
    assert plain.executions == count * n * (n - 1)
    assert shared.executions == count * ((n - 1) + n * (n - 1) // 2)


def test_shared_prefix_with_an_encoder_that_takes_clips_in_chunks(
        model, batches):
    whole = score(LossScorer(), model, batches)
    model.student.encoder.clip_chunk = 1
    shared = score(LossScorer(), model, batches)
    assert shared == score(LossScorer(share_prefix=False), model, batches)
    for index, value in whole.items():
        assert shared[index] == pytest.approx(value, rel=1e-4)


def test_shared_prefix_with_an_alignment_inside_the_blocks(batches, trained):
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
            LossScorer(with_alignments=True, share_prefix=share), model,
            batches) for share in (True, False)
    ]
    assert scores[0] == scores[1]


def test_metric_and_loss_are_those_of_the_shorter_model(
        shared_wrapper, batches):
    metric = score(MetricScorer(), shared_wrapper, batches, [0])
    loss = score(LossScorer(), shared_wrapper, batches, [0])
    for index in (1, 2, 3):
        model = copy.deepcopy(shared_wrapper)
        stack = BlockStack(model.student, 'backbone.blocks')
        stack.remove(0)
        stack.remove(index)
        assert metric[index] == evaluate(model, batches)['tad/mAP']
        assert loss[index] == pytest.approx(task_loss(model, batches))


def test_alignments_enter_the_loss(model, batches):
    plain = score(LossScorer(), model, batches)
    aligned = score(LossScorer(with_alignments=True), model, batches)
    assert all(aligned[i] > plain[i] + 1e-3 for i in plain)


def test_block_change_is_the_distance_of_output_and_input(model, batches):
    scorer = BlockChangeScorer()
    scores = score(scorer, model, batches, [1])
    stack = BlockStack(model.student, 'backbone.blocks')
    stack.remove(1)
    seen = {i: [] for i in stack.remaining}
    for i in stack.remaining:
        stack[i].register_forward_hook(
            lambda m, x, y, i=i: seen[i].append((y - x[0]).double()))
    evaluate(model, batches)
    for i, gaps in seen.items():
        wanted = torch.cat([g.flatten() for g in gaps]).square().mean()
        assert scores[i] == pytest.approx(wanted.item())
    assert scorer.executions == 3 * len(batches)


def test_halves_of_blocks(model, batches):
    attn, mlp = (f'backbone.blocks.2.{x}' for x in ('attn', 'mlp'))
    context = make_context(model, batches, structure=HalfBlocks)
    loss = LossScorer()(context)
    assert list(loss) == context.structure.ids and len(loss) == 2 * toy.DEPTH
    assert loss == LossScorer(share_prefix=False)(context)
    # A branch that is removed adds nothing.
    change = BlockChangeScorer()(context)
    seen = []
    context.structure[mlp].register_forward_hook(
        lambda module, args, out: seen.append(out.double()))
    evaluate(model, batches)
    wanted = torch.cat([out.flatten() for out in seen]).square().mean()
    assert change[mlp] == pytest.approx(wanted.item())
    assert RandomScorer(3)(context).keys() == loss.keys()
    assert MetricScorer()(make_context(
        model, batches, candidates=[attn], structure=HalfBlocks)).keys() == {
            attn}


def test_protected_blocks_are_not_scored(model, batches):
    for scorer in (MetricScorer(), LossScorer(), BlockChangeScorer(),
                   RandomScorer()):
        some = score(scorer, model, batches, (), [1, 3])
        every = score(scorer, model, batches)
        assert some == {i: every[i] for i in (1, 3)}


def test_random_scores_depend_on_the_seed_alone(model, batches):
    assert score(RandomScorer(3), model, batches) == score(
        RandomScorer(3), model, batches)
    orders = {
        tuple(RandomScorer(s).best(
            score(RandomScorer(s), model, batches), 4))
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
def test_model_is_as_before(model, batches, scorer):
    modules = dict(model.named_modules())
    state = copy.deepcopy(model.state_dict())
    before = evaluate(model, batches)
    scorer(make_context(model, batches))
    untouched(model, modules, state)
    assert evaluate(model, batches) == before


@pytest.mark.parametrize('share_prefix', [True, False])
def test_model_is_as_before_even_after_an_error(model, batches,
                                                share_prefix):
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
            make_context(
                model,
                batches,
                candidates=[0, 1, 2],
                new_evaluator=lambda: Full([dict(EVALUATOR)])))
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


def test_unknown_metric_lists_those_that_are_given(model, batches):
    with pytest.raises(KeyError) as error:
        score(MetricScorer('tad/map'), model, batches)
    assert "'tad/map'" in str(error.value)
    assert "'tad/mAP@0.50'" in str(error.value)


@pytest.mark.parametrize('value', [None, 'high', float('nan'), float('inf')])
def test_what_is_not_a_finite_number_is_named(value):
    with pytest.raises(ValueError, match='Block 3 has loss='):
        require_finite(value, 'Block 3 has loss')
    with pytest.raises(ValueError, match='Block 3 has tad/mAP='):
        pick({'tad/mAP': value}, 'tad/mAP', of='Block 3')


def test_names_are_ordered_by_their_numbers():
    names = ['blocks.10.attn', 'blocks.9.mlp', 'blocks.9.attn']
    assert MetricScorer().best(dict.fromkeys(names, 0.), 3) == names[::-1]


@pytest.mark.parametrize('value', [float('nan'), float('-inf'), 'low'])
def test_a_batch_that_is_not_finite_is_named(value):
    results = CandidateResults([0, 1])
    results.add(0, 1., 1)
    with pytest.raises(ValueError, match='Without 1 .*batch 1='):
        results.add(1, value, 1)
    state = dict(executions=3, sums={0: [(2., 1), (value, 1)]}, results={})
    with pytest.raises(ValueError, match='Without 0 .*batch 3='):
        results.load(state)


@pytest.mark.parametrize('name', ['LossScorer', 'RacingScorer',
                                  'BlockChangeScorer'])
def test_a_block_of_nan_does_not_win(model, batches, name):
    """Without the block the loss is finite; with it, it is not."""
    block = model.student.backbone.blocks[1]
    with torch.no_grad():
        next(block.parameters()).fill_(float('nan'))
    with pytest.raises(ValueError, match='=nan: expected a finite number'):
        score(SCORERS.get(name)(), model, batches)
