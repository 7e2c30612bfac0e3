"""Average precision, recall and TADMetric."""
import json
import subprocess
import sys
from pathlib import Path

from mmblockdrop.evaluation import TADMetric
from mmblockdrop.evaluation.activitynet import evaluate_detections
from mmblockdrop.evaluation.recall import average_recall
from mmblockdrop.parity.metrics import (PublishedTADMetric,
                                        evaluate_as_official,
                                        evaluate_as_published)
from mmblockdrop.registry import METRICS
from mmblockdrop.structures.segments import Instances, unique_annotations

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ['run', 'jump', 'fall']


def make_samples(num_videos=5, windows=3, seed=0):
    """Window samples as a localizer returns them, in dictionary form."""
    rng = np.random.default_rng(seed)
    samples = []
    for v in range(num_videos):
        start = np.sort(rng.uniform(0, 50, 4))
        gt = np.stack([start, start + rng.uniform(2, 8, 4)], 1)
        labels = rng.integers(0, 3, 4)
        for w in range(windows):
            pick = rng.integers(0, 4, 12)
            segments = gt[pick] + rng.normal(0, 0.7, (12, 2))
            segments.sort(1)
            samples.append(
                dict(
                    video_name=f'v{v}',
                    window_start_frame=w * 10,
                    video_segments=gt,
                    video_labels=labels,
                    pred_instances=dict(
                        segments=torch.tensor(segments),
                        scores=torch.tensor(rng.uniform(0, 1, 12)),
                        labels=torch.tensor(labels[pick]))))
    return samples


def score(samples, size=None, **settings):
    metric = TADMetric(**settings)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, samples)
    return metric.evaluate(size or len(samples))


def perfect(samples):
    """The same samples with the annotations as detections."""
    return [
        dict(
            s,
            pred_instances=dict(
                segments=torch.tensor(s['video_segments']),
                scores=torch.rand(len(s['video_labels'])) + 0.1,
                labels=torch.tensor(s['video_labels']))) for s in samples
    ]


def test_perfect_detections_score_one():
    metrics = score(
        perfect(make_samples()), nms=dict(type='nms', iou_threshold=0.99),
        ar_at=(1, 10), classwise=True)
    for key in ('mAP', 'mAP@0.30', 'mAP@0.70', 'AR@10', 'AP/run', 'AP/fall'):
        assert metrics[f'tad/{key}'] == pytest.approx(1.)
    assert metrics['tad/AR@1'] < 1


def test_no_detections_score_zero():
    samples = [
        dict(
            s,
            pred_instances=dict(
                segments=torch.zeros(0, 2),
                scores=torch.zeros(0),
                labels=torch.zeros(0).long())) for s in make_samples()
    ]
    assert score(samples, ar_at=(5, ))['tad/mAP'] == 0


def test_registered_and_fed_by_an_evaluator():
    samples = make_samples()
    for sample in samples:
        sample['pred_instances'] = InstanceData(
            **sample['pred_instances']).to_dict()
    metric = METRICS.build(dict(type='mmblockdrop.TADMetric'))
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=CLASSES)
    evaluator.process(samples)
    assert evaluator.evaluate(len(samples)) == score(samples)


def test_a_window_counts_once_and_padding_is_cut():
    samples = make_samples()
    expected = score(samples)
    assert score(samples + samples[:2], size=len(samples) + 2) == expected
    assert score(samples + make_samples(seed=1), len(samples)) == expected


def test_windows_of_a_video_are_merged_before_suppression():
    gt = np.array([[0., 10]])
    base = dict(video_name='v', video_segments=gt, video_labels=[0])
    samples = [
        dict(
            base,
            window_start_frame=start,
            pred_instances=dict(
                segments=torch.tensor([[0., 10 - start]]),
                scores=torch.tensor([0.9 - start]),
                labels=torch.tensor([0]))) for start in (0, 0.1)
    ]
    metric = TADMetric(nms=dict(type='nms', iou_threshold=0.5))
    metric.process(None, samples)
    merged = metric.merge(metric.results)
    np.testing.assert_allclose(merged.segments, gt)


def test_wrong_thresholds_are_named():
    with pytest.raises(ValueError, match=r'TADMetric.tiou_thresholds=\[50\]'):
        TADMetric(tiou_thresholds=[50])


@pytest.mark.parametrize('nms,words', [
    (dict(sigmaa=0.3), "nms='sigmaa'.*did you mean 'sigma'"),
    (dict(method='gauss'), "nms.method='gauss'.*did you mean 'gaussian'"),
    (dict(sigma=0), 'nms.sigma=0'),
])
def test_wrong_suppression_is_named_before_anything_is_scored(nms, words):
    with pytest.raises(ValueError, match=words):
        TADMetric(nms=nms)


def test_no_annotation_is_an_error():
    samples = make_samples(1, 1)
    samples[0].update(video_segments=np.zeros((0, 2)), video_labels=[])
    with pytest.raises(ValueError, match="1 videos.*'ann_file'"):
        score(samples)


def test_written_detections_give_the_same_score(tmp_path):
    samples = make_samples()
    file = tmp_path / 'sub' / 'detections.json'
    tiou = [0.3, 0.5]
    metrics = score(samples, tiou_thresholds=tiou, outfile=str(file))
    database = {
        s['video_name']: dict(
            subset='test',
            annotations=[
                dict(segment=list(segment), label=CLASSES[k])
                for segment, k in zip(s['video_segments'], s['video_labels'])
            ]) for s in samples
    }
    found = evaluate_detections(
        dict(database=database), file, tiou, subset='test')
    assert found.metrics['mAP@0.5'] == pytest.approx(
        metrics['tad/mAP@0.50'], abs=2e-3)


def test_ambiguous_stretches_neither_reward_nor_punish():
    gt = dict(
        database=dict(
            v=dict(
                subset='test',
                annotations=[
                    dict(segment=[0, 10], label='run'),
                    dict(segment=[20, 30], label='Ambiguous')
                ])))
    found = dict(
        results=dict(v=[
            dict(segment=[21, 29], label='run', score=0.9),
            dict(segment=[0, 10], label='run', score=0.8)
        ]))
    by_rule = {
        rule: evaluate_detections(
            gt, found, [0.5], 'test', ambiguous=rule).metrics['average_mAP']
        for rule in ('ignore', 'drop')
    }
    assert by_rule == {'ignore': 1., 'drop': 0.5}
    published = evaluate_as_published(gt, found, [0.5], 'test').metrics
    assert published['average_mAP'] == 0.25
    with pytest.raises(ValueError, match="ambiguous.*'class'.*'drop'"):
        evaluate_detections(gt, found, [0.5], 'test', ambiguous='class')


def test_files_of_another_form_are_named(tmp_path):
    with pytest.raises(ValueError, match="'database'"):
        evaluate_detections({}, {}, [0.5])
    broken = tmp_path / 'broken.json'
    broken.write_text('{')
    with pytest.raises(ValueError, match='broken.json'):
        evaluate_detections(broken, {}, [0.5])
    with pytest.raises(ValueError, match="subset='validation'.*'test'"):
        evaluate_detections(
            dict(database=dict(v=dict(subset='test', annotations=[]))),
            dict(results={}), [0.5])


def test_repeated_annotations_count_once():
    gt = Instances.build([0] * 5,
                         [[0, 5], [0.0009, 5.0009], [3, 3], [0, 6], [0, 5]],
                         [0, 0, 0, 0, 1])
    kept = unique_annotations(gt)
    assert kept.segments.tolist() == [[0, 5], [0, 6], [0, 5]]


def test_average_recall_equals_mmaction():
    from mmaction.evaluation import average_recall_at_avg_proposals
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 50, (6, 40))
    segments = np.stack([start, start + rng.uniform(1, 9, (6, 40))], 2)
    scores = rng.uniform(0, 1, (6, 40))
    truth = {f'v{i}': segments[i, :4] + 0.4 for i in range(6)}
    proposals = {
        f'v{i}': np.column_stack([segments[i], scores[i]])
        for i in range(6)
    }
    tiou = np.linspace(0.5, 0.95, 10)
    recall, average, _, auc = average_recall_at_avg_proposals(
        truth, proposals, 6 * 40, 100, tiou)
    videos = np.repeat(np.arange(6), 40)
    gt = Instances.build(
        np.repeat(np.arange(6), 4), segments[:, :4] + 0.4, np.zeros(24))
    det = Instances.build(videos, segments, np.zeros(240), scores.ravel())
    curve = average_recall(gt, det, tiou, 100)
    np.testing.assert_allclose(curve, average, atol=1e-9)


TWO_PROCESSES = '''
import sys
sys.path[:0] = {paths!r}
import torch.distributed as dist
from test_tad_metric import CLASSES, make_samples
from mmblockdrop.evaluation import TADMetric
rank = int(sys.argv[1])
dist.init_process_group('gloo', init_method='file://' + sys.argv[2],
                        rank=rank, world_size=2)
samples = make_samples()
# The sampler gives every process as many samples: one comes twice.
samples += samples[:1]
metric = TADMetric(ar_at=(10, ))
metric.dataset_meta = dict(classes=CLASSES)
for sample in samples[rank::2]:
    metric.process(None, [sample])
metrics = metric.evaluate(len(samples) - 1)
if rank == 1:
    import json
    json.dump(metrics, open(sys.argv[3], 'w'))
dist.barrier()
dist.destroy_process_group()
'''


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    samples = make_samples()
    assert len(samples) % 2 == 1
    script = tmp_path / 'rank.py'
    script.write_text(
        TWO_PROCESSES.format(
            paths=[str(ROOT), str(Path(__file__).parent)]))
    command = [sys.executable, str(script)]
    files = [str(tmp_path / 'meet'), str(tmp_path / 'metrics.json')]
    runs = [
        subprocess.Popen([*command, str(rank), *files], cwd=tmp_path)
        for rank in range(2)
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    found = json.loads(Path(files[1]).read_text())
    expected = score(samples, ar_at=(10, ))
    assert [*found] == [*expected]
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12)


@pytest.mark.parity
def test_parity_of_average_precision(golden):
    data = golden('map_eval.json')
    for case in data['cases']:
        found = evaluate_as_published(
            data['ground_truths'][case['ground_truth']],
            data['predictions'][case['prediction']],
            case['tiou_thresholds'],
            subset=case.get('subset', 'validation'),
            blocked=case.get('blocked', ()),
            top_k=case.get('top_k', ()))
        expected = case['expected']
        assert found.num_gt == expected['num_gt']
        assert found.num_pred == expected['num_pred']
        assert found.num_unknown == expected['num_pred_unknown_label']
        if case['name'] == 'score_ties':
            continue
        assert found.metrics == pytest.approx(expected['metrics'], abs=1e-9)
        by_class = dict(zip(found.classes, found.table.ap.T.tolist()))
        assert set(by_class) == set(expected['per_class_ap'])
        for name, values in expected['per_class_ap'].items():
            assert by_class[name] == pytest.approx(values, abs=1e-9)


@pytest.mark.parity
def test_parity_with_the_official_evaluator():
    """On an excerpt, and on the whole files where they are at hand."""
    excerpt = ROOT / 'tests/data/activitynet13'
    shared = ROOT.parent / 'shared/data/activitynet13'
    known = json.loads((excerpt / 'known.json').read_text())
    cases = [(excerpt, known['excerpt'])]
    if shared.is_dir():
        cases.append((shared, known['full']))
    for folder, expected in cases:
        metrics = evaluate_as_official(
            folder / 'activitynet_13_train_val.json',
            folder / 'sample_detection_prediction.json',
            np.linspace(0.5, 0.95, 10)).metrics
        assert len(metrics) == 11
        for value in metrics.values():
            assert value == pytest.approx(expected, abs=1e-7)


@pytest.mark.parity
def test_parity_of_merging_windows(golden):
    """Suppression over the windows of a video, with published settings.

    Theirs have a ``voting_thresh`` that is ignored.
    """
    data = golden('pbd_detector.pt')
    nms = golden('pbd_detector_config.json')['post_processing']['nms']
    metric = PublishedTADMetric(
        nms=dict(
            type='soft_nms',
            sigma=nms['sigma'],
            min_score=0.),
        max_per_video=nms['max_seg_num'])
    classes = data['classes']
    for variant in data['student'].values():
        for name, rows in variant['window_results'].items():
            found = metric.merge([
                dict(
                    segments=[r['segment'] for r in rows],
                    scores=[r['score'] for r in rows],
                    labels=[classes.index(r['label']) for r in rows])
            ])
            expected = variant['video_results'][name]
            assert len(found.scores) == len(expected)
            scores = np.array([r['score'] for r in expected])
            np.testing.assert_allclose(
                np.sort(found.scores), np.sort(scores), atol=2e-3)
            # Rounded scores may tie, and the order of ties is not defined:
            # nearly all segments keep the published score.
            ours = {
                (round(float(start), 2), round(float(end), 2), classes[k]): c
                for (start, end), c, k in zip(*found)
            }
            near = [abs(ours[(*r['segment'], r['label'])] - r['score']) < 1e-4
                    for r in expected]
            assert np.mean(near) > 0.95


@pytest.mark.parametrize('key, value', [
    ('segments', float('nan')), ('segments', float('inf')),
    ('scores', float('nan'))
])
def test_what_is_not_finite_is_named(key, value):
    samples = make_samples()
    samples[4]['pred_instances'][key][2] = value
    with pytest.raises(ValueError, match=f"{key}={value}.*video 'v1'"):
        score(samples)
    window = dict(samples[4]['pred_instances'], video='v1')
    with pytest.raises(ValueError, match=f"{key}={value}.*video 'v1'"):
        TADMetric().merge([window])


@pytest.mark.parametrize('place, value', [
    ('score', None), ('score', 'high'), ('score', float('inf')),
    ('start', float('nan'))
])
def test_files_with_values_that_are_not_finite(place, value):
    row = dict(label='run', segment=[0., 1.], score=0.5)
    row.update({'score': dict(score=value),
                'start': dict(segment=[value, 1.])}[place])
    truth = dict(database=dict(v1=dict(
        subset='validation',
        annotations=[dict(label='run', segment=[0., 1.])])))
    with pytest.raises(ValueError, match=f"Video 'v1' has {place}={value!r}"):
        evaluate_detections(truth, dict(results=dict(v1=[row])), [0.5])


@pytest.mark.parametrize('agnostic', [True, False])
def test_results_are_left_as_they_are(agnostic):
    metric = TADMetric(class_agnostic=agnostic)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, make_samples())
    before = [dict(result) for result in metric.results]
    metric.compute_metrics(metric.results)
    for result, kept in zip(metric.results, before):
        assert all(result[key] is kept[key] for key in kept)
