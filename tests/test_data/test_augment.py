"""RandAugment on clips."""
import numpy as np
import pytest
import torch

from mmblockdrop.data import RandAugmentClip


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
