"""Conversion between seconds and feature-grid steps."""
from mmblockdrop.structures.time_grid import (frames_to_steps,
                                              seconds_to_steps,
                                              steps_to_frames,
                                              steps_to_seconds, whole_video)

import numpy as np
import pytest
import torch

META = dict(
    fps=25.,
    duration=40.,
    snippet_stride=4,
    window_start_frame=200,
    offset_frames=8)


@pytest.mark.parametrize('convert', [np.asarray, torch.tensor])
def test_there_and_back(convert):
    seconds = convert([[9., 9.5], [12.25, 40.]])
    steps = seconds_to_steps(seconds, META)
    assert type(steps) is type(seconds)
    np.testing.assert_allclose(np.asarray(steps)[0], [4.25, 7.375])
    np.testing.assert_allclose(
        np.asarray(steps_to_seconds(steps, META)), np.asarray(seconds))


def test_frames_are_the_grid_between():
    steps = frames_to_steps(np.array([208., 212., 214.]), META)
    np.testing.assert_allclose(steps, [0, 1, 1.5])
    np.testing.assert_allclose(steps_to_frames(steps, META), [208, 212, 214])


def test_seconds_are_clipped_to_the_video_and_steps_are_not():
    assert seconds_to_steps([[0., 50.]], META)[0].tolist() == [-52., 260.5]
    assert steps_to_seconds([[-100., 900.]], META)[0].tolist() == [0., 40.]


def test_nothing_in_nothing_out():
    empty = torch.zeros(0, 2)
    assert steps_to_seconds(empty, META).shape == (0, 2)


def test_argument_is_left_as_it_is():
    segments = np.array([[-5., 1000.]])
    steps_to_seconds(segments, META)
    assert segments.tolist() == [[-5., 1000.]]


def test_missing_key_is_named():
    with pytest.raises(KeyError, match="no 'fps'.*duration"):
        steps_to_seconds([[0., 1.]], dict(duration=3., snippet_stride=2))


def test_whole_video_needs_no_rule_of_its_own():
    meta = dict(whole_video(2067, 82.73, 32), duration=82.73)
    seconds = steps_to_seconds([[8., 32.]], meta)
    np.testing.assert_allclose(seconds, [[82.73 / 4, 82.73]])


@pytest.mark.parity
def test_seconds_as_published(golden):
    for case in golden('dataset_windows.json')['to_seconds']:
        meta = case['meta']
        if 'resize_length' in meta:
            meta = dict(
                whole_video(777, meta['duration'], meta['resize_length']),
                duration=meta['duration'])
        for convert in (np.asarray, torch.tensor):
            np.testing.assert_allclose(
                np.asarray(steps_to_seconds(convert(case['segments']), meta)),
                case['seconds'],
                rtol=1e-6,
                atol=2e-5)
