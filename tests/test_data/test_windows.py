"""Where windows are, and which actions they hold."""
import random

from mmblockdrop.data.annotations import sample_indices
from mmblockdrop.data.windows import (cut_segments, random_window,
                                      sliding_windows, unique_actions)
from mmblockdrop.parity.data import published_windows

import numpy as np
import pytest


@pytest.mark.parametrize('overlap', [0, 0.25, 0.5, 0.875])
@pytest.mark.parametrize('num_steps', [1, 7, 8, 9, 12, 16, 17, 100])
def test_sliding_covers_every_step_once(num_steps, overlap):
    windows = sliding_windows(num_steps, 8, overlap)
    assert len(set(windows)) == len(windows)
    covered = set()
    for start, steps in windows:
        assert start >= 0 and start + steps <= num_steps
        assert steps == min(8, num_steps)
        covered.update(range(start, start + steps))
    assert covered == set(range(num_steps))


def test_sliding_rejects_windows_that_stand_still():
    with pytest.raises(ValueError, match='overlap_ratio=0.95'):
        sliding_windows(100, 8, 0.95)
    with pytest.raises(ValueError, match='overlap_ratio=1'):
        sliding_windows(100, 8, 1)


def test_cut_keeps_enough_and_leaves_its_argument():
    segments = np.array([[0., 8.], [4., 8.], [7., 11.], [20., 22.]])
    before = segments.copy()
    cut, keep = cut_segments(segments, 2, 10, 0.75)
    assert keep.tolist() == [True, True, True, False]
    assert cut.tolist() == [[2, 8], [4, 8], [7, 10]]
    np.testing.assert_array_equal(segments, before)


def test_random_window_shows_an_action():
    segments = np.array([[500., 520.]])
    for seed in range(30):
        random.seed(seed)
        start, stop = random_window(1000, 100, segments)
        assert stop - start == 100
        assert min(stop, 520) - max(start, 500) >= 15


def test_random_window_of_a_short_video():
    random.seed(0)
    lengths = set()
    for _ in range(200):
        start, stop = random_window(50, 100, np.zeros((0, 2)))
        assert 0 <= start < stop <= 50
        lengths.add(stop - start)
    assert lengths == set(range(45, 51))
    assert random_window(50, 100, np.zeros((0, 2)), crop_ratio=None) == (0, 50)


def test_random_window_repeats_with_its_generator():
    segments = np.array([[10., 20.]])
    draws = []
    for _ in range(2):
        random.seed(0)
        draws.append([random_window(300, 64, segments) for _ in range(5)])
    assert draws[0] == draws[1] and len(set(draws[0])) > 1


def test_sample_indices_at_least_one():
    assert len(sample_indices(10, 0.01)) == 1
    with pytest.raises(ValueError, match='sample_ratio=0'):
        sample_indices(10, 0)


@pytest.mark.parity
def test_windows_as_published(golden):
    recorded = golden('dataset_windows.json')['real_size_windows']
    size, stride = recorded['window_size'], recorded['feature_stride']
    for row in recorded['table']:
        windows = published_windows(-(-row['frames'] // stride), size,
                                    row['overlap'])
        table = [[start * stride, (start + steps - 1) * stride, steps]
                 for start, steps in windows]
        assert table == row['windows'], row


@pytest.mark.parity
def test_our_windows_cover_what_the_published_miss(golden):
    recorded = golden('dataset_windows.json')['real_size_windows']
    size, stride = recorded['window_size'], recorded['feature_stride']
    for row in recorded['table']:
        windows = sliding_windows(-(-row['frames'] // stride), size,
                                  row['overlap'])
        assert len(set(windows)) == len(windows)
        start, steps = windows[-1]
        assert start + steps == -(-row['frames'] // stride)
        published = {first // stride for first, _, _ in row['windows']}
        assert published - {start for start, _ in windows} == set()


@pytest.mark.parity
def test_subset_as_published(golden):
    for case in golden('dataset_windows.json')['sub_dataset_indices']:
        assert sample_indices(case['length'], case['ratio'],
                              case['python_random_seed']) == case['indices']


@pytest.mark.parity
def test_same_actions_kept_as_published(golden):
    """The published filter lets some repetitions pass; ours does not."""
    for case in golden('dataset_windows.json')['filter_same_annotation']:
        segments, labels = unique_actions(
            np.array(case['segments'], dtype=float), np.array(case['labels']))
        ours = [(*segment, label) for segment, label in zip(
            segments.tolist(), labels.tolist())]
        theirs = [(*segment, label) for segment, label in zip(
            case['kept_segments'], case['kept_labels'])]
        assert ours == list(dict.fromkeys(theirs))
