"""The generator of demonstration videos."""
import json
import os

from mmblockdrop.data.prepare.synthetic import (CLASSES, GESTURE, MOTIONS,
                                                DemoSpec, is_finished,
                                                make_dataset, plan, pose)

import decord
import numpy as np
import pytest

SPEC = DemoSpec(
    seed=3,
    videos=dict(training=2, validation=1, test=1),
    shortest=8.,
    longest=10.)


def read(folder):
    """Annotations, and the frames of every video."""
    with open(os.path.join(folder, 'annotations.json')) as file:
        database = json.load(file)['database']
    frames = {}
    for name in database:
        reader = decord.VideoReader(os.path.join(folder, 'videos',
                                                 f'{name}.mp4'))
        frames[name] = reader.get_batch(range(len(reader))).asnumpy()
    return database, frames


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('demo'))
    make_dataset(folder, SPEC, num_workers=1)
    return folder


def test_what_is_written_reads_back(made):
    database, frames = read(made)
    assert [entry['subset'] for entry in database.values()] == [
        'training', 'training', 'validation', 'test']
    for name, entry in database.items():
        assert frames[name].shape == (entry['frame'], 64, 64, 3)
        assert entry['duration'] == pytest.approx(entry['frame'] / 10)
        for action in entry['annotations']:
            start, end = action['segment']
            assert 0 <= start < end <= entry['duration']
            assert action['label'] in CLASSES
    with open(os.path.join(made, 'category_idx.txt')) as file:
        assert tuple(file.read().split()) == CLASSES


def test_same_seed_same_pixels(made, tmp_path):
    make_dataset(str(tmp_path), SPEC, num_workers=2)
    (one, first), (two, second) = read(made), read(str(tmp_path))
    assert one == two
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_other_seed_other_data(made, tmp_path):
    spec = DemoSpec(seed=4, videos=SPEC.videos, shortest=8., longest=10.)
    make_dataset(str(tmp_path), spec, num_workers=1)
    assert read(made)[0] != read(str(tmp_path))[0]


def test_finished_data_are_reused(made):
    path = os.path.join(made, 'videos', 'demo_training_000.mp4')
    before = os.stat(path).st_mtime_ns
    make_dataset(made, SPEC, num_workers=1)
    assert os.stat(path).st_mtime_ns == before
    assert is_finished(made, SPEC) and not is_finished(made, DemoSpec())


def test_unfinished_data_are_made_again(tmp_path):
    spec = DemoSpec(videos=dict(training=1), shortest=5., longest=5.)
    make_dataset(str(tmp_path), spec, num_workers=1)
    os.remove(tmp_path / 'videos' / 'demo_training_000.mp4')
    assert not is_finished(str(tmp_path), spec)
    make_dataset(str(tmp_path), spec, num_workers=1)
    assert is_finished(str(tmp_path), spec)


def test_default_is_what_it_promises():
    """Plans only: no frame is drawn."""
    spec = DemoSpec()
    assert len(spec.names()) >= 60 and len(CLASSES) >= 6
    plans = [plan(np.random.default_rng(index), spec) for index in range(60)]
    lengths = np.array([frames for frames, _ in plans]) / spec.fps
    assert lengths.min() >= 20 and lengths.max() <= 60
    actions = [[event for event in events if event.label is not None]
               for _, events in plans]
    assert np.mean([len(events) for events in actions]) > 4
    assert {event.label for events in actions for event in events} == set(
        CLASSES)
    overlapping = sum(
        two.start < one.stop and one.start < two.stop
        for events in actions for one in events for two in events
        if one is not two)
    assert overlapping > 20
    assert any(event.label is None for _, events in plans for event in events)
    for (frames, _), events in zip(plans, actions):
        busy = np.zeros(frames, dtype=bool)
        for event in events:
            busy[event.start:event.stop] = True
        for event in (e for e in events if e.label is not None):
            motion, seconds = MOTIONS[event.label], (
                event.stop - event.start) / spec.fps
            assert motion.shortest - 0.1 <= seconds <= motion.longest + 0.1
        assert not busy.all() and (~busy).mean() > 0.2


def test_a_class_shows_at_both_ends_only():
    """Each end alone is that of an imitation, and the middle is the same."""
    u = np.linspace(0, 1, 1001)
    seconds = 3.
    middle = (u * seconds > GESTURE) & ((1 - u) * seconds > GESTURE)

    def look(first, last):
        return np.stack(pose(first, last, u, seconds), -1)

    looks = {label: look(m.first, m.last) for label, m in MOTIONS.items()}
    assert len({(m.first, m.last) for m in MOTIONS.values()}) == len(MOTIONS)
    for label, motion in MOTIONS.items():
        action = looks[label]
        still = action[middle]
        assert np.ptp(still % (2 * np.pi), 0).max() < 1e-9
        np.testing.assert_allclose(still[:, 3], 1.4)
        begins, ends = (look(*pair) for pair in motion.imitations())
        early = u * seconds <= GESTURE
        late = (1 - u) * seconds <= GESTURE
        np.testing.assert_allclose(begins[early], action[early], atol=1e-9)
        np.testing.assert_allclose(
            np.sin(ends[late]), np.sin(action[late]), atol=1e-9)
        for other in (begins, ends):
            assert np.abs(other - action).max() > 1
