"""Candidates that are judged after their own repair."""
import copy

from mmblockdrop.compression import BlockStack, HalfBlocks, LinearRepair
from mmblockdrop.scorers import FeatureErrorScorer, MetricScorer

import pytest
import torch
import toy
from scorers_kit import make_batches, make_context

RULES = [FeatureErrorScorer, lambda: MetricScorer(repaired=True)]


@pytest.fixture(scope='module')
def batches():
    """Ten videos in five batches."""
    return make_batches(10)


@pytest.fixture
def model(shared_wrapper):
    """Student and teacher, to be changed."""
    return copy.deepcopy(shared_wrapper)


def run(localizer, batch):
    """A pass of a localizer."""
    localizer(**localizer.data_preprocessor(batch, False), mode='tensor')


def test_metric_is_that_of_the_repaired_model(model, batches):
    scores = MetricScorer(repaired=True)(make_context(model, batches))
    teacher = model.uncompressed()
    for index in (0, 2):
        shorter = copy.deepcopy(model)
        stack = BlockStack(shorter.student, 'backbone.blocks')
        stack.remove(index)
        evaluator = make_context(shorter, batches).new_evaluator()
        LinearRepair(refit=False, both_layers=False)(
            shorter.student, teacher, stack, [index], batches, run)
        shorter.eval()
        with torch.no_grad():
            for batch in batches:
                evaluator.process(shorter.val_step(batch), batch)
        wanted = evaluator.evaluate(len(batches.dataset))['tad/mAP']
        assert scores[index] == pytest.approx(wanted, abs=0.02)
    assert scores != MetricScorer()(make_context(model, batches))


def test_shared_blocks_give_the_same_bits(model, batches):
    shared, plain = (
        MetricScorer(repaired=True, share_prefix=share) for share in
        (True, False))
    assert shared(make_context(model, batches)) == plain(
        make_context(model, batches))
    assert shared.executions < plain.executions


@pytest.mark.parametrize('make', RULES)
@pytest.mark.parametrize('structure, norms', [
    (BlockStack, ['norm1']), (HalfBlocks, ['norm1', 'norm2'])])
def test_block_executions_are_those_that_happen(make, structure, norms, model,
                                                batches):
    ran = []
    for localizer in (model.student, model.uncompressed()):
        for block in localizer.backbone.blocks:
            for norm in norms:
                getattr(block, norm).register_forward_hook(
                    lambda *_: ran.append(1))
    context = make_context(model, batches, structure=structure)
    scorer = make()
    scorer(context)
    # Looking for the layers to fit takes some passes of single blocks.
    searching = 12 * toy.DEPTH * len(norms)
    assert 0 <= len(ran) - scorer.executions <= searching


def test_executions_beside_the_published_rule(model, batches):
    """In passes over all blocks, as the docs state them."""
    n, count = toy.DEPTH, len(batches)
    features = FeatureErrorScorer()
    features(make_context(model, batches))
    fitted, held = count - 1, 1
    # To fit: teacher and student, as what to fit stands in front of every
    # candidate, the patch embedding in front of the first. To judge: teacher,
    # then the candidates. The rest is looking for the layers to fit, on one
    # batch.
    plainly = fitted * 2 * n + held * (n + (n - 1) + n * (n - 1) // 2)
    assert plainly <= features.executions <= plainly + held * n + 12 * n
    published = MetricScorer(share_prefix=False)
    published(make_context(model, batches))
    assert published.executions == count * n * (n - 1)


@pytest.mark.parametrize('make', RULES)
def test_weights_are_as_before(make, model, batches):
    before = copy.deepcopy(model.student.state_dict())
    make()(make_context(model, batches))
    for name, value in model.student.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize('make, key', [
    (RULES[0], 'train_cfg.scorer'), (RULES[1], 'train_cfg.scorer.repaired')])
def test_a_teacher_is_needed(make, key, model, batches):
    with pytest.raises(ValueError, match=key) as error:
        make()(make_context(model.student, batches))
    assert 'ActionFormer' in str(error.value)
