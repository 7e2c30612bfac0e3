"""What repeats the published code differs from ours, and by what."""
import inspect
import json

from mmblockdrop.data import UntrimmedVideoDataset
from mmblockdrop.distillation import BlockAlignment
from mmblockdrop.evaluation import TADMetric
from mmblockdrop.localizers import ActionFormerHead
from mmblockdrop.registry import DATASETS, METRICS, MODELS

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

HEAD = dict(num_classes=3, in_channels=4, num_convs=1, strides=(1, 2))


@pytest.mark.parametrize('registry, name, base', [
    (DATASETS, 'VideoDataset', UntrimmedVideoDataset),
    (MODELS, 'ActionFormerHead', ActionFormerHead),
    (MODELS, 'BlockAlignment', BlockAlignment),
    (METRICS, 'TADMetric', TADMetric),
])
def test_registered_beside_what_it_derives_from(registry, name, base):
    assert issubclass(registry.get(f'mmblockdrop.Published{name}'), base)


@pytest.mark.parametrize('registry, cfg, key, value, name', [
    (DATASETS, dict(type='UntrimmedVideoDataset', ann_file='a.json'),
     'window_rule', 'published', 'PublishedVideoDataset'),
    (DATASETS, dict(type='UntrimmedVideoDataset', ann_file='a.json'),
     'frame_rule', 'truncate', 'PublishedVideoDataset'),
    (MODELS, dict(type='ActionFormerHead', **HEAD), 'integer_normalizer',
     True, 'PublishedActionFormerHead'),
    (MODELS, dict(type='BlockAlignment'), 'include_padding', True,
     'PublishedBlockAlignment'),
    (METRICS, dict(type='TADMetric'), 'round_to', (2, 4),
     'PublishedTADMetric'),
])
def test_former_switches_name_what_replaces_them(registry, cfg, key, value,
                                                 name):
    cls = registry.get(f'mmblockdrop.{cfg["type"]}')
    assert key not in inspect.signature(cls).parameters
    cfg = dict(cfg, type=f'mmblockdrop.{cfg["type"]}', **{key: value})
    with pytest.raises(TypeError) as error:
        registry.build(cfg)
    assert f'{key}={value!r}' in str(error.value)
    assert f'mmblockdrop.{name}' in str(error.value)


def test_former_switch_of_suppression_names_what_replaces_it():
    with pytest.raises(
            ValueError, match='nms.vote_per_class=False.*voting_thresh'):
        TADMetric(nms=dict(vote_per_class=False))


@pytest.mark.parametrize('exact', [True, False])
def test_the_normalizer_is_cut_on_loading(exact):
    kind = 'ActionFormerHead' if exact else 'PublishedActionFormerHead'
    state = ActionFormerHead(loss_normalizer=63.27, **HEAD).state_dict()
    head = MODELS.build(dict(type=f'mmblockdrop.{kind}', **HEAD))
    head.load_state_dict(state)
    assert head.loss_normalizer.item() == pytest.approx(
        63.27 if exact else 63.)
    assert head.loss_normalizer.dtype == torch.float32
    assert state['loss_normalizer'].item() == pytest.approx(63.27)


def test_padding_counts():
    student = nn.Module()
    student.window_size = 8
    samples = [BaseDataElement(metainfo=dict(valid_steps=n)) for n in (3, 8)]
    torch.manual_seed(0)
    s, t = torch.randn(2, 4, 5, 3)
    values = []
    for kind in ('BlockAlignment', 'PublishedBlockAlignment'):
        align = MODELS.build(dict(type=f'mmblockdrop.{kind}'))
        values.append(align.compare('', s, t, student, samples))
    real = (s - t)[[0, 2, 3]]
    torch.testing.assert_close(values[0], real.square().mean())
    torch.testing.assert_close(values[1], (s - t).square().mean())


def dataset(tmp_path, kind, **kwargs):
    actions = [dict(segment=[0.33, 1.14], label='jump')]
    database = dict(
        v=dict(duration=7., fps=10, frame=70, subset='training',
               annotations=actions))
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(dict(database=database)))
    return DATASETS.build(
        dict(
            type=f'mmblockdrop.{kind}',
            ann_file=str(path),
            data_prefix=dict(),
            window_size=16,
            snippet_stride=2,
            pipeline=[dict(type='mmblockdrop.SampleWindow')],
            **kwargs))


def test_boundaries_are_whole_frames_and_tails_can_be_missed(tmp_path):
    kwargs = dict(windows='sliding', overlap_ratio=0.25, test_mode=True)
    ours, theirs = (
        dataset(tmp_path, kind, **kwargs)
        for kind in ('UntrimmedVideoDataset', 'PublishedVideoDataset'))
    starts = [[d[i]['window_start_step'] for i in range(len(d))]
              for d in (ours, theirs)]
    assert starts == [[0, 12, 19], [0, 12]]
    np.testing.assert_allclose(ours[0]['gt_segments'], [[1.65, 5.7]])
    np.testing.assert_allclose(theirs[0]['gt_segments'], [[1.5, 5.5]])


def test_detections_are_rounded_before_suppression():
    metric = METRICS.build(
        dict(type='mmblockdrop.PublishedTADMetric', nms=None))
    window = dict(
        segments=[[0.123, 4.567], [1., 2.]],
        scores=[0.43218, 0.00004],
        labels=[0, 1])
    segments, scores, labels = metric.merge([window])
    np.testing.assert_allclose(segments, [[0.12, 4.57], [1., 2.]])
    np.testing.assert_allclose(scores, [0.4322, 0.])
    assert labels.tolist() == [0, 1]
