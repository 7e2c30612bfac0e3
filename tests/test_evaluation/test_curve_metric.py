"""Average precision of TEM's curves."""
from mmblockdrop.evaluation import CurveMetric
from mmblockdrop.evaluation.curve_metric import step_precision

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData


def test_precision_by_hand():
    scores = np.array([.9, .8, .7, .6])
    assert step_precision(scores, np.array([1, 0, 1, 0], bool)) == (
        pytest.approx((1 + 2 / 3) / 2))
    # Equal scores cannot be told apart: half of two.
    assert step_precision(np.ones(2), np.array([1, 0], bool)) == .5


def test_targets_by_hand():
    metric = CurveMetric()
    found = metric.targets(np.array([[.25, .75]]), 8)
    assert found[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    # Regions one step wide, half a step on each side of the boundary.
    assert not found[:, 1:].any()
    wide = CurveMetric(match_threshold=.4).targets(
        np.array([[.25, .75]]), 8)
    assert wide[:, 1].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert not metric.targets(np.zeros((0, 2)), 8).any()


def test_both_forms_of_predictions():
    class Sample(dict):
        pass

    boxes = torch.tensor([[.2, .7]])
    curves = np.zeros((10, 5), np.float32)
    curves[2:7, 0] = .9
    curves[[2, 7], [1, 2]] = .8
    metric = CurveMetric(match_threshold=.4)
    sample = Sample(gt_instances=InstanceData(gt_bbox=boxes))
    metric.process(dict(data_samples=[sample]), [('v', curves)])
    window = dict(
        curves=torch.from_numpy(curves),
        valid_steps=8,
        gt_instances=dict(segments=boxes * 10))
    metric.process(None, [window])
    first, second = metric.results
    np.testing.assert_array_equal(first[1][:8], second[1])
    assert len(second[0]) == 8
    found = metric.compute_metrics(metric.results)
    assert found['AP_action'] == 1
    assert next(iter(found)) == 'mAP'
    with pytest.raises(ValueError, match='pred_instances'):
        metric.process(None, [dict(pred_instances=1)])
    sample['gt_instances'] = {}
    with pytest.raises(ValueError, match='GenerateLocalizationLabels'):
        metric.process(dict(data_samples=[sample]), [('v', curves)])
    with pytest.raises(ValueError, match='1 videos'):
        metric.compute_metrics([(curves[:, :3], np.zeros((10, 3), bool))])
    window['curves'][3, 1] = float('nan')
    with pytest.raises(ValueError, match='1 of 30 values'):
        metric.process(None, [window])
