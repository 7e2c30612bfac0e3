"""Intervals by bootstrap over videos."""
import json

from mmblockdrop.evaluation import TADMetric
from mmblockdrop.evaluation.average_precision import (average_precision,
                                                      match_detections,
                                                      matched_precision,
                                                      metric_interval,
                                                      percentile_interval,
                                                      resample_videos,
                                                      resampled_map)
from mmblockdrop.evaluation.recall import average_recall
from mmblockdrop.structures.segments import Instances

import numpy as np
import pytest
import torch
import toy
from mmengine.runner import Runner

THRESHOLDS = (.3, .5, .7)


def make_instances(videos=9, classes=3, seed=0):
    """Annotations and detections; the last video has neither."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, videos - 1, 4 * videos)
    start = rng.uniform(0, 80, len(of))
    gt = Instances.build(
        of, np.stack([start, start + rng.uniform(2, 8, len(of))], 1),
        rng.integers(0, classes, len(of)))
    pick = rng.integers(0, len(of), 12 * videos)
    segments = gt.segments[pick] + rng.normal(0, 1, (len(pick), 2))
    labels = np.where(
        rng.random(len(pick)) < .7, gt.labels[pick],
        rng.integers(0, classes + 1, len(pick)))
    det = Instances.build(gt.videos[pick], np.sort(segments, 1), labels,
                          rng.random(len(pick)))
    return gt, det


def joined(parts):
    return Instances(*(None if field[0] is None else np.concatenate(field)
                       for field in zip(*parts)))


def copies(instances, chosen):
    """The chosen videos one after another, each as a video of its own."""
    parts = []
    for number, video in enumerate(chosen):
        found = instances.select(instances.videos == video)
        parts.append(found._replace(
            videos=np.full(len(found.videos), number)))
    return joined(parts)


def drawn(num_videos, resamples, seed):
    """Videos of each resample."""
    weights = []
    resample_videos(lambda w: weights.append(w) or w.T, num_videos, 1,
                    resamples, seed)
    return [np.repeat(np.arange(num_videos), w)
            for w in np.concatenate(weights, 1).T]


@pytest.mark.parametrize('ignoring', [False, True])
def test_a_resample_is_scored_like_its_videos(ignoring):
    gt, det = make_instances()
    start = np.arange(9) * 7.
    stretches = Instances.build(
        range(9), np.stack([start, start + 9], 1), [0] * 9)
    ignored = stretches if ignoring else None
    matches = match_detections(gt, det, THRESHOLDS, ignored, num_videos=9)
    found = resampled_map(matches, 20, seed=3)
    assert found.shape == (20, 3)
    for value, videos in zip(found, drawn(9, 20, 3)):
        expected = average_precision(
            copies(gt, videos), copies(det, videos), THRESHOLDS,
            copies(ignored, videos) if ignoring else None)
        np.testing.assert_allclose(value, expected.ap.mean(1), atol=1e-9)


def test_the_interval_holds_the_value_and_narrows_with_more_videos():
    widths = []
    for videos in (6, 60, 600):
        matches = match_detections(*make_instances(videos), THRESHOLDS)
        low, high = metric_interval(matches)
        value = matched_precision(matches).ap.mean()
        assert 0 <= low < value < high <= 1
        assert metric_interval(matches) == (low, high)
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_chunks_do_not_change_the_resamples(monkeypatch):
    matches = match_detections(*make_instances(), THRESHOLDS)
    whole = resampled_map(matches, 30)
    monkeypatch.setattr(
        'mmblockdrop.evaluation.average_precision.CHUNK', 500)
    np.testing.assert_array_equal(resampled_map(matches, 30), whole)


def test_one_video_or_none_with_actions_gives_no_interval():
    gt, det = make_instances()
    alone = match_detections(
        copies(gt, [1]), copies(det, [1]), THRESHOLDS, num_videos=1)
    assert np.isnan(metric_interval(alone)).all()
    assert np.isnan(percentile_interval(np.full(5, np.nan), .5)).all()
    # Resamples without annotation are left out.
    lone = match_detections(
        copies(gt, [1]), copies(det, [1]), THRESHOLDS, num_videos=3)
    assert np.isnan(resampled_map(lone, 50)).any()
    assert np.isfinite(metric_interval(lone)).all()


def test_no_detection_at_all():
    gt, det = make_instances()
    none = det.select(np.zeros(len(det.labels), bool))
    assert metric_interval(match_detections(gt, none, THRESHOLDS)) == (0, 0)


def make_samples(gt, det, videos):
    samples = []
    for video in range(videos):
        true, found = (x.select(x.videos == video) for x in (gt, det))
        samples.append(dict(
            video_name=f'v{video}',
            video_segments=true.segments,
            video_labels=true.labels,
            pred_instances=dict(
                segments=torch.tensor(found.segments),
                scores=torch.tensor(found.scores),
                labels=torch.tensor(found.labels))))
    return samples


def score(samples, **settings):
    metric = TADMetric(nms=None, **settings)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_the_metric_reports_counts_and_intervals():
    gt, det = make_instances()
    samples = make_samples(gt, det, 9)
    found = score(samples, ar_at=(1, 5), classwise=True)
    assert found['tad/videos'] == 9
    assert found['tad/actions'] == len(gt.labels)
    keys = ['tad/mAP', 'tad/mAP@0.50', 'tad/AR@1', 'tad/AR@5', 'tad/AUC']
    for key in keys:
        low, high = found[f'{key}_interval']
        assert low <= found[key] <= high
        assert low < high
    assert not any(key.startswith('tad/AP/') and key.endswith('_interval')
                   for key in found)
    # Not resampled, the rest is the same.
    plain = score(samples, ar_at=(1, 5), classwise=True, bootstrap=0)
    assert plain == {key: value for key, value in found.items()
                     if not key.endswith('_interval')}
    curve = average_recall(gt, det, np.linspace(0.5, 0.95, 10), 5)
    assert found['tad/AR@5'] == pytest.approx(curve[4])
    assert 'tad/mAP_interval' not in score(samples[:1])
    with pytest.raises(ValueError, match='TADMetric.bootstrap=-1'):
        TADMetric(bootstrap=-1)


def test_the_file_of_test_results_has_intervals_and_counts(tmp_path):
    runner = Runner.from_cfg(toy.config(tmp_path / 'run'))
    runner.model.init_weights()
    runner.test()
    file, = (tmp_path / 'run').glob('*/*.json')
    found = json.loads(file.read_text())
    assert found['tad/videos'] == 5 and found['tad/actions'] == 5
    low, high = found['tad/mAP_interval']
    assert low <= found['tad/mAP'] <= high
