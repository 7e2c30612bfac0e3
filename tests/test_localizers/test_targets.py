"""Assignment of actions to points."""
from mmblockdrop.localizers.actionformer.head import (assign_targets,
                                                      default_ranges,
                                                      grid_points)

import pytest
import torch

RULES = {
    'radius': {},
    'no_center_sampling': dict(center_radius=0),
    'radius_no_similar_filter': dict(filter_similar=False)
}


def pyramid(length, strides, ranges=None, use_offset=False):
    ranges = ranges or default_ranges(strides)
    return torch.cat([
        grid_points(-(-length // s), s, r, use_offset, torch.device('cpu'))
        for s, r in zip(strides, ranges)
    ])


@pytest.mark.parity
def test_points_as_published(golden):
    gold = golden('head_targets.pt')
    for key, use_offset in (('points', False), ('points_use_offset', True)):
        for points, stride, bounds in zip(gold[key], gold['strides'],
                                          gold['regression_range']):
            ours = grid_points(
                len(points), stride, bounds, use_offset, points.device)
            assert torch.equal(ours, points)


@pytest.mark.parity
def test_targets_as_published(golden):
    gold = golden('head_targets.pt')
    points, num_classes = torch.cat(gold['points']), gold['num_classes']
    cases = list(gold['cases'].values())
    for rule, options in RULES.items():
        classes, offsets = assign_targets(
            points, [c['gt_segments'] for c in cases],
            [c['gt_labels'] for c in cases], num_classes, **options)
        for i, case in enumerate(cases):
            theirs = case[rule]
            assert torch.equal(classes[i], theirs['cls_targets'].float())
            positive = classes[i].any(-1)
            assert positive.sum() == theirs['num_pos']
            assert (classes[i].sum(-1) > 1).sum() == theirs['num_multi']
            assert torch.equal(offsets[i][positive],
                               theirs['reg_targets'][positive].float())


def test_a_batch_equals_its_samples():
    torch.manual_seed(0)
    points = pyramid(50, (1, 2, 4))
    starts = [torch.rand(n, 1) * 40 for n in (3, 0, 7)]
    segments = [torch.cat((s, s + 1 + 9 * torch.rand_like(s)), 1)
                for s in starts]
    labels = [torch.randint(0, 4, (len(s), )) for s in starts]
    classes, offsets = assign_targets(points, segments, labels, 4)
    for i in range(3):
        one, offset = assign_targets(points, [segments[i]], [labels[i]], 4)
        assert torch.equal(classes[i], one[0])
        positive = one[0].any(-1)
        assert torch.equal(offsets[i][positive], offset[0][positive])
    assert not classes[1].any() and classes[2].any()


def test_offsets_lead_back_to_the_action():
    points = pyramid(64, (1, 2, 4, 8))
    segment = torch.tensor([[10.3, 21.9]])
    classes, offsets = assign_targets(points, [segment],
                                      [torch.tensor([1])], 2)
    positive = classes[0].any(-1)
    assert positive.any() and not classes[0][:, 0].any()
    position, stride = points[positive, 0], points[positive, 3]
    start = position - offsets[0, positive, 0] * stride
    end = position + offsets[0, positive, 1] * stride
    torch.testing.assert_close(start, torch.full_like(start, 10.3))
    torch.testing.assert_close(end, torch.full_like(end, 21.9))


def test_label_outside_of_the_classes_is_named():
    segment = torch.tensor([[1., 4.]])
    for label, span in ((3, '3 to 3'), (-1, '-1 to -1')):
        with pytest.raises(ValueError, match=f'num_classes=3.*from {span}'):
            assign_targets(
                pyramid(8, (1, )), [segment], [torch.tensor([label])], 3)


def test_default_ranges_are_those_of_actionformer():
    assert default_ranges((1, 2, 4)) == [(0, 4), (4, 8), (8, 10000)]
