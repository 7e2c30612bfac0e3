"""Classes for proposals, from a file of scores by video."""
import copy
import json

from mmblockdrop.evaluation import ExternalClassifier, TADMetric
from mmblockdrop.evaluation.external_classifier import THUMOS14_COLUMNS

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

CLASSES = ['jump', 'run', 'swim']
SCORES = dict(a=[.1, .7, .2], v_b=[.6, .1, .3])


def write(tmp_path, content, name='scores.json'):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize('content', [
    {'results': SCORES, 'class': CLASSES},
    {'results': SCORES, 'classes': CLASSES},
    {'results': {k: [v] for k, v in SCORES.items()}, 'class': CLASSES},
    {k: dict(zip(CLASSES, v)) for k, v in SCORES.items()},
    {'results': {
        k: [dict(label=c, score=x) for c, x in zip(CLASSES, v)]
        for k, v in SCORES.items()
    }},
])
def test_every_format_says_the_same(tmp_path, content):
    read = ExternalClassifier(write(tmp_path, content), topk=2)
    for video in ('a', 'v_a'):
        names, scores = read.scores_of(video)
        assert names == ['run', 'swim']
        np.testing.assert_allclose(scores, [.7, .2], rtol=1e-6)
    assert read.scores_of('b', ['jump', 'run'])[0] == ['jump', 'run']
    assert copy.deepcopy(read) is read


def test_names_of_scores_by_argument(tmp_path):
    path = write(tmp_path, SCORES)
    with pytest.raises(ValueError, match='external_classifier.classes'):
        ExternalClassifier(path)
    assert ExternalClassifier(
        path, topk=1, classes=CLASSES).scores_of('a')[0] == ['run']


def test_logits_and_square_roots(tmp_path):
    path = write(tmp_path, {'results': dict(a=[0., 1., 2.]), 'class': CLASSES})
    read = ExternalClassifier(
        path, topk=3, activation='softmax', combine='sqrt')
    names, scores = read.scores_of('a')
    np.testing.assert_allclose(
        scores, torch.tensor([2., 1., 0.]).softmax(0), rtol=1e-6)
    np.testing.assert_allclose(
        read.combined(np.float32([.25, 1]), .16), [.2, .4], rtol=1e-6)


def test_untrimmednet_array_of_thumos14(tmp_path):
    table = np.zeros((5, 101), np.float32)
    table[3, THUMOS14_COLUMNS['Diving']] = .9
    table[3, 40] = 1.  # one of UCF101's classes that THUMOS14 does not have
    np.save(tmp_path / 'unet.npy', table)
    read = ExternalClassifier(str(tmp_path / 'unet.npy'), topk=1)
    names, scores = read.scores_of('video_test_0000004')
    assert names == ['Diving'] and scores == np.float32(.9)
    with pytest.raises(ValueError, match='videos 1 to 5'):
        read.scores_of('video_test_0000006')


def test_errors_name_what_is_missing(tmp_path):
    path = write(tmp_path, {'results': SCORES, 'class': CLASSES})
    read = ExternalClassifier(path)
    with pytest.raises(ValueError, match="'c'.*2 videos.*subset"):
        read.scores_of('c')
    with pytest.raises(ValueError, match="'swimm'.*did you mean 'swim'"):
        read.scores_of('a', ['swimm'])
    with pytest.raises(
            FileNotFoundError,
            match="external_classifier.path.*did you mean 'scores.json'"):
        ExternalClassifier(path.replace('scores', 'score'))
    with pytest.raises(ValueError, match='external_classifier.topk=0'):
        ExternalClassifier(path, topk=0)
    with pytest.raises(ValueError, match="external_classifier.combine='sum'"):
        ExternalClassifier(path, combine='sum')
    short = write(tmp_path, {'results': dict(a=[1.]), 'class': CLASSES})
    with pytest.raises(
            ValueError,
            match="external_classifier.path.*1 scores .*'a'.* 3 classes"):
        ExternalClassifier(short).scores_of('a')
    (tmp_path / 'broken.json').write_text('{')
    with pytest.raises(
            ValueError, match='external_classifier.path.*broken.json'):
        ExternalClassifier(str(tmp_path / 'broken.json'))


def proposals(video, segments, scores, truth, labels):
    """A window as ``EndToEndLocalizer`` returns it, as the metric gets it."""
    sample = BaseDataElement(
        metainfo=dict(
            video_name=video,
            video_segments=np.array(truth),
            video_labels=np.array(labels)))
    sample.pred_instances = InstanceData(
        segments=torch.tensor(segments), scores=torch.tensor(scores))
    return sample.to_dict()


def evaluate(samples, classes=CLASSES, batch=None, **settings):
    metric = TADMetric(tiou_thresholds=[.5], **settings)
    metric.dataset_meta = dict(classes=classes)
    metric.process(batch, samples)
    return metric, metric.compute_metrics(metric.results)


def test_proposals_times_classes_by_hand(tmp_path):
    path = write(tmp_path, {'results': SCORES, 'class': CLASSES})
    samples = [
        proposals('a', [[0., 4.], [6., 9.]], [.9, .5], [[0., 4.]], [1]),
        proposals('b', [[0., 2.]], [.8], [[0., 2.]], [2])
    ]
    metric, found = evaluate(
        samples, nms=None, external_classifier=dict(path=path, topk=2))
    merged = metric.merge(metric.results[:1])
    np.testing.assert_allclose(
        merged.scores, np.float32([.63, .35, .18, .1]), rtol=1e-5)
    assert merged.labels.tolist() == [1, 1, 2, 2]
    # 'run' is found first of two; 'swim' of b (.24) before those of a.
    assert found['mAP@0.50'] == 1


def test_stock_outputs_bring_names(tmp_path):
    path = write(tmp_path, {'results': SCORES, 'class': CLASSES})
    outputs = [
        dict(
            video_name='v_a',
            proposal_list=[dict(score=.9, segment=[0., 4.])])
    ]
    sample = BaseDataElement(
        metainfo=dict(
            video_name='v_a',
            annotations=[dict(segment=[0., 4.], label='run')]))
    batch = dict(data_samples=[sample])
    metric = TADMetric(external_classifier=dict(path=path))
    metric.dataset_meta = {}
    metric.process(batch, outputs)
    assert metric.compute_metrics(metric.results)['mAP'] == 1
    assert metric.classes == CLASSES
    sample.set_metainfo(dict(annotations=[dict(segment=[0, 1], label='fly')]))
    with pytest.raises(ValueError, match='fly'):
        metric.process(batch, outputs)
    with pytest.raises(ValueError, match='batch_size=1'):
        metric.process(dict(data_samples=[sample] * 2), outputs)


def test_proposals_alone_are_scored_whatever_the_class():
    samples = [proposals('a', [[0., 4.]], [.9], [[0., 4.], [5., 9.]], [1, 2])]
    with pytest.raises(ValueError, match='class_agnostic=True'):
        evaluate(samples)
    _, found = evaluate(samples, class_agnostic=True, ar_at=[1])
    assert found['mAP@0.50'] == .5 and found['AR@1'] == .5
    with pytest.raises(
            ValueError, match='external_classifier.*class_agnostic=True'):
        TADMetric(class_agnostic=True, external_classifier=dict(path='x'))


def test_classifier_does_not_replace_classes(tmp_path):
    path = write(tmp_path, {'results': SCORES, 'class': CLASSES})
    sample = proposals('a', [[0., 4.]], [.9], [[0., 4.]], [1])
    # A detector of one class has nothing to lose.
    sample['pred_instances']['labels'] = torch.tensor([0])
    _, found = evaluate([sample], external_classifier=dict(path=path))
    assert found['mAP@0.50'] == 1
    sample['pred_instances']['labels'] = torch.tensor([1])
    with pytest.raises(ValueError, match='TADMetric.external_classifier'):
        evaluate([sample], external_classifier=dict(path=path))


@pytest.mark.parametrize('scores, word', [
    ([.1, float('nan'), .2], 'nan'),
    ([.1, float('inf'), .2], 'inf'),
    ([.1, None, .2], 'None'),
    ([.1, '.7', .2], "'.7'"),
    ([.1, -.5, .2], '-0.5'),
])
def test_scores_that_are_not_finite_or_negative(tmp_path, scores, word):
    for content in (
        {'results': dict(a=scores), 'class': CLASSES},
        {'a': dict(zip(CLASSES, scores))},
        {'a': [dict(label=c, score=x) for c, x in zip(CLASSES, scores)]}):
        path = write(tmp_path, content)
        with pytest.raises(ValueError, match='scores.json.*a.*') as error:
            ExternalClassifier(path).scores_of('a')
        assert word in str(error.value)


def test_numbers_too_large_for_a_float(tmp_path):
    path = tmp_path / 'scores.json'
    path.write_text('{"class": ["run", "swim"], "results": {"a": [1e400, 1]}}')
    with pytest.raises(ValueError, match='scores.json.*inf'):
        ExternalClassifier(str(path)).scores_of('a')


def test_classes_that_come_twice(tmp_path):
    rows = [dict(label='run', score=.1), dict(label='run', score=.9)]
    with pytest.raises(ValueError, match="scores.json.*'run' twice"):
        ExternalClassifier(write(tmp_path, {'a': rows}))
    path = tmp_path / 'scores.json'
    path.write_text('{"a": {"run": 0.1, "run": 0.9}}')
    with pytest.raises(ValueError, match="scores.json.*'run' twice"):
        ExternalClassifier(str(path))


def test_an_array_with_nan(tmp_path):
    table = np.full((4, 101), .1)
    table[2, 6] = np.nan
    np.save(tmp_path / 'scores.npy', table)
    read = ExternalClassifier(str(tmp_path / 'scores.npy'))
    assert len(read.scores_of('video_test_0000002')[0]) == 2
    with pytest.raises(ValueError, match='BaseballPitch.*0000003.*nan'):
        read.scores_of('video_test_0000003')
