"""Rounds with repair in closed form, and candidates scored without labels."""
from mmblockdrop.compression import LinearRepair
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from rounds_kit import blocks_in, read_record, read_weights, train
from test_resume import interrupted, same_weights

pytestmark = pytest.mark.usefixtures('unmeasured')
REPAIR = dict(type='mmblockdrop.LinearRepair')


def encoder_error(run_dir, trained, cfg):
    """Squared error of the student's features, share of the variance."""
    state, meta = read_weights(run_dir / 'round_2.pth')
    gone = [i for r in meta['blockdrop']['rounds'] for i in r['dropped']]
    student = MODELS.build(toy.localizer(drop_blocks=gone))
    student.load_state_dict(state)
    teacher = MODELS.build(toy.localizer())
    teacher.load_state_dict(read_weights(trained)[0])
    found = []
    for model in (student, teacher):
        model.eval()
        data = model.data_preprocessor(toy.batch(6, seed=9), False)
        found.append(model.extract_feat(data['inputs']).detach())
    return ((found[0] - found[1]).square().mean() / found[1].var()).item()


def test_repair_without_training_and_labels(block_drop, tmp_path, trained):
    errors = {}
    for name, options in dict(cut={}, repaired=dict(repair=REPAIR)).items():
        cfg = block_drop(
            tmp_path / name,
            epochs_per_round=0,
            scorer=dict(type='mmblockdrop.FeatureErrorScorer'),
            **options)
        train(cfg)
        errors[name] = encoder_error(tmp_path / name, trained, cfg)
    assert errors['repaired'] < 0.8 * errors['cut']
    rounds = read_record(tmp_path / 'repaired')['rounds']
    first = rounds[0]
    scores = {int(k): v for k, v in first['scores'].items()}
    assert first['criterion'] == 'FeatureErrorScorer'
    assert first['dropped'] == [min(scores, key=lambda i: (scores[i], i))]
    assert all(score >= 0 for score in scores.values())
    for entry in rounds:
        assert entry['repair'] and 'repair' in entry['seconds']
        assert all(e['error_after'] <= e['error_before']
                   for e in entry['repair'])
    state, meta = read_weights(tmp_path / 'repaired' / 'round_2.pth')
    assert blocks_in(state) == rounds[-1]['blocks_left']
    assert meta['blockdrop']['rounds'][0]['repair'] == first['repair']


def test_scoring_leaves_the_weights(block_drop, tmp_path, trained):
    train(
        block_drop(
            tmp_path,
            drops=1,
            epochs_per_round=0,
            scorer=dict(type='mmblockdrop.FeatureErrorScorer')))
    start = read_weights(trained)[0]
    state, _ = read_weights(tmp_path / 'round_1.pth')
    for name, value in state.items():
        assert (value == start[name]).all(), name


def test_repair_comes_before_alignment(block_drop, tmp_path):
    train(block_drop(tmp_path, drops=1, epochs_per_round=1, repair=REPAIR))
    entry, = read_record(tmp_path)['rounds']
    assert entry['repair'] and set(entry['epochs']) == {'0', '1'}


def test_halves_are_repaired(block_drop, tmp_path):
    cfg = block_drop(
        tmp_path,
        epochs_per_round=0,
        repair=REPAIR,
        scorer=dict(type='mmblockdrop.FeatureErrorScorer'))
    cfg.custom_hooks[0].structure = 'mmblockdrop.HalfBlocks'
    train(cfg)
    for entry in read_record(tmp_path)['rounds']:
        assert entry['dropped'][0] in entry['scores']
        assert any(e.get('kept') for e in entry['repair'])


def test_averaged_weights_are_repaired(block_drop, tmp_path):
    """The copy that ``EMAHook`` keeps is made anew after the repair."""
    states = []
    for name, hooks in (('plain', []),
                        ('ema', [dict(type='EMAHook', momentum=0.3)])):
        cfg = block_drop(
            tmp_path / name, drops=1, epochs_per_round=0, repair=REPAIR)
        cfg.custom_hooks += hooks
        train(cfg)
        states.append(read_weights(tmp_path / name / 'round_1.pth')[0])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_resume_takes_the_weights_of_the_checkpoint(block_drop, tmp_path,
                                                    monkeypatch):
    whole = tmp_path / 'whole'
    train(block_drop(whole, repair=REPAIR))
    work_dir = interrupted(whole, tmp_path, 'epoch_3.pth')

    def never(*args, **kwargs):
        raise AssertionError('repaired once more')

    monkeypatch.setattr(LinearRepair, '__call__', never)
    train(block_drop(work_dir, repair=REPAIR, resume=True))
    same_weights(whole / 'round_2.pth', work_dir / 'round_2.pth',
                 'state_dict')
    assert [r['repair'] for r in read_record(work_dir)['rounds']
            ] == [r['repair'] for r in read_record(whole)['rounds']]


def test_repair_needs_a_teacher(block_drop, tmp_path):
    cfg = block_drop(tmp_path, repair=REPAIR)
    cfg.model = toy.localizer()
    with pytest.raises(ValueError, match='train_cfg.repair'):
        train(cfg)


def test_repair_needs_the_uncompressed_teacher(block_drop, tmp_path):
    cfg = block_drop(
        tmp_path, repair=REPAIR, student=dict(dynamic_teacher=True))
    with pytest.raises(ValueError, match='dynamic_teacher=True'):
        train(cfg)


def test_rounds_are_aligned_only_if_needed(block_drop, tmp_path):
    """A generous tolerance needs no training, a strict one does."""
    for name, tolerance in dict(generous=1., strict=0.).items():
        train(
            block_drop(
                tmp_path / name,
                drops=2,
                epochs_per_round=1,
                repair=REPAIR,
                align_if_needed=True,
                stop=dict(tolerance=tolerance)))
    rounds = read_record(tmp_path / 'generous')['rounds']
    assert [r['not_aligned'] for r in rounds] == [True, True]
    assert all(set(r['epochs']) == {'0'} and r['best_epoch'] == 0
               for r in rounds)
    assert not list((tmp_path / 'generous').glob('epoch_*.pth'))
    record = read_record(tmp_path / 'strict')
    for entry in record['rounds']:
        fell = entry['metric_before'] < record['baseline']['metric']
        assert entry['not_aligned'] is not fell
        assert ('1' in entry['epochs']) is fell


@pytest.mark.parametrize('options', [
    dict(stop=dict(tolerance=0.1)), dict(repair=REPAIR)])
def test_align_if_needed_needs_repair_and_a_tolerance(options, block_drop,
                                                      tmp_path):
    with pytest.raises(ValueError, match='train_cfg.align_if_needed'):
        train(block_drop(tmp_path, align_if_needed=True, **options))
