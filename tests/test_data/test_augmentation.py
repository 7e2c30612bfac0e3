"""RandAugment and square crops of clips."""
import random

from mmblockdrop.data import RandAugmentClip
from mmblockdrop.registry import TRANSFORMS

import numpy as np
import pytest
import torch


def clip(frames=3):
    frame = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    return dict(imgs=[frame] * frames)


def test_all_frames_alike_and_by_the_seed_of_numpy():
    augment = RandAugmentClip()
    drawn = []
    for seed in (1, 1, 2, 3):
        np.random.seed(seed)
        before = torch.random.get_rng_state()
        frames = augment(clip())['imgs']
        assert torch.equal(torch.random.get_rng_state(), before)
        assert all(np.array_equal(frame, frames[0]) for frame in frames)
        assert frames[0].shape == (24, 32, 3) and frames[0].dtype == np.uint8
        drawn.append(frames[0])
    assert np.array_equal(drawn[0], drawn[1])
    assert any(not np.array_equal(drawn[0], other) for other in drawn[2:])
    assert 'magnitude=9' in repr(augment)


def test_strength_out_of_range():
    with pytest.raises(ValueError, match='magnitude=31 must be between 0'):
        RandAugmentClip(magnitude=31)


@pytest.mark.parametrize('crop,steps', [
    ('SquareCrop', [dict(type='Resize', scale=(-1, 21)),
                    dict(type='CenterCrop', crop_size=21)]),
    ('RandomSquareCrop', [
        dict(type='Resize', scale=(-1, 24)), dict(type='RandomResizedCrop'),
        dict(type='Resize', scale=(21, 21), keep_ratio=False)]),
])
def test_square_crops_are_those_of_mmaction2(crop, steps):
    built = [[TRANSFORMS.build(dict(step, type=f"{scope}.{step['type']}"))
              for step in chain] for scope, chain in (
        ('mmblockdrop', [dict(type=crop, crop_size=21)]), ('mmaction', steps))]
    found = []
    for chain in built:
        random.seed(0)
        np.random.seed(0)
        results = dict(clip(), img_shape=(24, 32), modality='RGB')
        for transform in chain:
            results = transform(results)
        found.append(results)
    ours, theirs = found
    assert ours['img_shape'] == (21, 21) and len(ours['imgs']) == 3
    assert all(map(np.array_equal, ours['imgs'], theirs['imgs']))
    assert 'crop_size=21' in repr(built[0][0])
