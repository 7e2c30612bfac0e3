"""Untrimmed demonstration videos, made from a seed.

An actor is a bar with a dot at one end. An action is one gesture, a pause in
which the actor stays large, and another gesture: which action it is shows at
its two ends, seconds apart, and in no single moment. Imitations, which are
background, have only one of the two gestures.

Two actors idle in front of a blurred picture and act now and then, sometimes
both at once. Long stretches hold no action, and others pass by. The camera
trembles, the light drifts, and every pixel is noisy. What is written are real
``.mp4`` files, an ActivityNet-style ``annotations.json`` and
``category_idx.txt``.
"""
import json
import os
import os.path as osp
from dataclasses import asdict, dataclass, field
from typing import (Any, Callable, Dict, Iterator, List, NamedTuple, Optional,
                    Tuple)

from mmblockdrop.utils.io import whole_file

import cv2
import numpy as np
from mmengine.utils import track_parallel_progress, track_progress

#: To be raised with any change of the videos, so that old ones are replaced.
GENERATOR_VERSION = 2
STAMP = 'generator.json'
#: Sub-pixel bits of OpenCV's drawing functions.
SHIFT = 4
#: Seconds of a gesture.
GESTURE = 0.8


class Pose(NamedTuple):
    """Where an actor is relative to its place, over T frames.

    Args:
        dx, dy: Pixels [T], to the right and down.
        angle: Radians [T], clockwise.
        scale: Factor of the size [T].
    """
    dx: np.ndarray
    dy: np.ndarray
    angle: np.ndarray
    scale: np.ndarray


class Motion(NamedTuple):
    """A class of actions.

    Args:
        first, last: Gestures at its ends.
        shortest, longest: Seconds.
    """
    first: str
    last: str
    shortest: float
    longest: float

    def imitations(self) -> List[Tuple[str, str]]:
        """Pairs of gestures that begin or end alike and are background."""
        return [(self.first, 'rest'), ('rest', self.last)]


#: From progress [T] in [0, 1] to dx, dy and angle.
GESTURES: Dict[str, Callable[[np.ndarray], Tuple]] = {
    'hop': lambda p: (0., -11 * np.sin(np.pi * p), 0.),
    'spin': lambda p: (0., 0., 2 * np.pi * p),
    'shake': lambda p: (6 * np.sin(4 * np.pi * p), 0., 0.),
    'rest': lambda p: (0., 0., 0.),
}
MOTIONS: Dict[str, Motion] = {
    'hop_hop': Motion('hop', 'hop', 1.8, 3.0),
    'hop_spin': Motion('hop', 'spin', 2.5, 4.0),
    'hop_shake': Motion('hop', 'shake', 3.2, 5.5),
    'spin_hop': Motion('spin', 'hop', 2.5, 4.0),
    'spin_spin': Motion('spin', 'spin', 3.2, 5.5),
    'spin_shake': Motion('spin', 'shake', 1.8, 3.0),
    'shake_hop': Motion('shake', 'hop', 3.2, 5.5),
    'shake_spin': Motion('shake', 'spin', 1.8, 3.0),
    'shake_shake': Motion('shake', 'shake', 2.5, 4.0),
}
CLASSES: Tuple[str, ...] = tuple(MOTIONS)


def pose(first: str, last: str, u: np.ndarray, seconds: float) -> Pose:
    """One gesture, a pause, another gesture.

    Args:
        first, last: The gestures; ``'rest'`` stays where it is.
        u: Progress [T] in [0, 1].
        seconds: Length of the whole.

    Returns:
        Of T frames.
    """
    share = GESTURE / seconds
    begun = np.clip(u / share, 0, 1)
    ended = np.clip((u - 1) / share + 1, 0, 1)
    moves = zip(GESTURES[first](begun), GESTURES[last](ended))
    dx, dy, angle = (np.broadcast_to(one + two, u.shape)
                     for one, two in moves)
    return Pose(dx, dy, angle, 1 + 0.4 * np.minimum(begun, 1 - ended))


def wander(rng: np.random.Generator, frames: int, size: float,
           inertia: float = 0.97) -> np.ndarray:
    """A smooth random walk [frames] that stays within about ``size``."""
    walk = np.zeros(frames)
    speed = value = 0.
    for index, push in enumerate(rng.normal(size=frames)):
        speed = 0.9 * speed + push * (1 - inertia)
        value = inertia * value + speed
        walk[index] = value
    return walk * size / max(1e-6, np.abs(walk).max())


def draw_actor(image: np.ndarray, centre: Tuple[float, float], angle: float,
               scale: float, colours: List[Tuple[int, int, int]]) -> None:
    """Draw one actor into a frame, in place.

    Args:
        image: uint8 [H, W, 3].
        centre: Pixels, x and y.
        angle: Radians, clockwise from the right.
        scale: Factor of the size.
        colours: Of the bar and of its dot.
    """
    along = np.array([np.cos(angle), np.sin(angle)]) * 6 * scale
    across = np.array([-along[1], along[0]]) * 0.45
    corners = np.array([along + across, along - across, -along - across,
                        -along + across]) + centre
    fixed = np.round(corners * 2**SHIFT).astype(np.int32)
    cv2.fillConvexPoly(image, fixed, colours[0], cv2.LINE_AA, SHIFT)
    dot = np.round((along * 0.65 + centre) * 2**SHIFT).astype(int)
    cv2.circle(image, (int(dot[0]), int(dot[1])),
               int(2.2 * scale * 2**SHIFT), colours[1], -1, cv2.LINE_AA,
               SHIFT)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A blurred random picture, uint8 [size, size, 3]."""
    coarse = rng.uniform(60, 190, (5, 5, 3)).astype(np.float32)
    picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class DemoSpec:
    """What to generate.

    Args:
        seed: The same seed gives the same videos.
        videos: Number of videos of each subset.
        size: Height and width in pixels.
        fps: Frames per second.
        shortest, longest: Seconds of a video.
        imitations: Imitations per action.
        overlap: Share of actions that the other actor accompanies by one of
            its own, or by an imitation.
        noise: Standard deviation of the pixel noise, of 255.
    """
    seed: int = 0
    videos: Dict[str, int] = field(default_factory=lambda: dict(
        training=200, validation=16, test=32))
    size: int = 64
    fps: float = 10.
    shortest: float = 20.
    longest: float = 60.
    imitations: float = 0.4
    overlap: float = 0.3
    noise: float = 5.

    def names(self) -> List[Tuple[str, str]]:
        """Name and subset of every video."""
        return [(f'demo_{subset}_{index:03d}', subset)
                for subset, count in self.videos.items()
                for index in range(count)]


@dataclass
class Event:
    """Something that an actor does: frames [start, stop).

    ``label`` is None for an imitation; ``gestures`` are those at its ends.
    """
    label: Optional[str]
    gestures: Tuple[str, str]
    start: int
    stop: int
    actor: int


def plan(rng: np.random.Generator, spec: DemoSpec) -> Tuple[int, List[Event]]:
    """Length of a video in frames, and what happens in it."""
    seconds = spec.shortest + (spec.longest - spec.shortest) * rng.random()**2
    frames = round(seconds * spec.fps)
    quiet = rng.uniform(0.1, 0.8) * frames  # when the long stretch begins
    events: List[Event] = []
    now = round(rng.uniform(0.5, 2.5) * spec.fps)
    while True:
        if quiet is not None and now >= quiet:
            now, quiet = now + round(rng.uniform(4, 8) * spec.fps), None
        imitation = rng.random() < spec.imitations / (1 + spec.imitations)
        event = _event(rng, spec, now, int(rng.integers(2)), imitation)
        if event.stop > frames - spec.fps / 2:
            return frames, events
        events.append(event)
        end = event.stop
        if rng.random() < 2 * spec.overlap:
            start = now + round(rng.uniform(0.2, 0.8) * (event.stop - now))
            second = _event(rng, spec, start, 1 - event.actor,
                            rng.random() < 0.5)
            if second.stop <= frames - spec.fps / 2:
                events.append(second)
                end = max(end, second.stop)
        now = end + round(rng.uniform(0.3, 1.5) * spec.fps)


def _event(rng: np.random.Generator, spec: DemoSpec, start: int, actor: int,
           imitation: bool) -> Event:
    label = CLASSES[rng.integers(len(CLASSES))]
    motion = MOTIONS[label]
    seconds = rng.uniform(motion.shortest, motion.longest)
    gestures = (motion.first, motion.last)
    if imitation:
        choices = motion.imitations()
        label, gestures = None, choices[rng.integers(len(choices))]
    return Event(label, gestures, start, start + round(seconds * spec.fps),
                 actor)


def trajectories(rng: np.random.Generator, spec: DemoSpec, frames: int,
                 events: List[Event]) -> np.ndarray:
    """Place, angle and size of both actors in every frame.

    Returns:
        [2, frames, 4], x, y, angle (radians) and scale.
    """
    half = spec.size / 2
    side = rng.choice([-1., 1.])
    places = half + np.array([[side, rng.uniform(-0.6, 0.6)],
                              [-side, rng.uniform(-0.6, 0.6)]]) * half * 0.45
    states = np.zeros((2, frames, 4))
    for actor in range(2):
        states[actor, :, 2] = rng.uniform(0, 2 * np.pi) + wander(
            rng, frames, 0.5)
        states[actor, :, 3] = 1 + wander(rng, frames, 0.08)
    offsets = np.stack([[wander(rng, frames, 3.) for _ in 'xy']
                        for _ in range(2)]).transpose(0, 2, 1)
    states[:, :, :2] = places[:, None]
    for event in events:
        frames_of_it = event.stop - event.start
        # Progress in the middle of each frame's share of the action.
        u = (np.arange(frames_of_it) + 0.5) / frames_of_it
        shown = pose(*event.gestures, u, frames_of_it / spec.fps)
        state = states[event.actor, event.start:event.stop]
        state[:, 0] += shown.dx
        state[:, 1] += shown.dy
        state[:, 2] += shown.angle
        state[:, 3] *= shown.scale
    states[:, :, :2] += offsets
    return states


def _passer_by(rng: np.random.Generator, spec: DemoSpec,
               frames: int) -> np.ndarray:
    """Someone who crosses the scene now and then: [frames, 4]."""
    period = rng.uniform(6, 14) * spec.fps
    along = (np.arange(frames) / period + rng.random()) % 1
    lane = rng.uniform(0.1, 0.9) * spec.size
    x = (along * 2.2 - 0.6) * spec.size
    state = np.stack([x, lane + wander(rng, frames, 5.),
                      wander(rng, frames, 2.), np.full(frames, 0.9)], -1)
    return state[:, [1, 0, 2, 3]] if rng.random() < 0.5 else state


def _colours(rng: np.random.Generator) -> List[Tuple[int, int, int]]:
    """A bright bar with a dark dot, or the reverse."""
    bright = rng.integers(215, 256, 3).tolist()
    dark = rng.integers(0, 40, 3).tolist()
    return [bright, dark] if rng.random() < 0.5 else [dark, bright]


def render(rng: np.random.Generator, spec: DemoSpec,
           states: np.ndarray) -> Iterator[np.ndarray]:
    """Frames of a video.

    Args:
        states: [A, T, 4] of all who are to be seen.

    Yields:
        Uint8 [size, size, 3].
    """
    frames = states.shape[1]
    margin = 4
    scene = background(rng, spec.size + 2 * margin)
    colours = [_colours(rng) for _ in states]
    tremble = np.stack([wander(rng, frames, 1.5, 0.8) for _ in 'xy'], -1)
    light = 1 + wander(rng, frames, 0.25, 0.99)
    for index in range(frames):
        image = scene.copy()
        for state, colour in zip(states[:, index], colours):
            draw_actor(image, state[:2] + margin, state[2], state[3], colour)
        shift = np.array([[1, 0, tremble[index, 0] - margin],
                          [0, 1, tremble[index, 1] - margin]])
        image = cv2.warpAffine(image, shift, (spec.size, spec.size))
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image * light[index] + noise * spec.noise
        yield np.clip(image, 0, 255).astype(np.uint8)


def make_video(task: Tuple[str, int, DemoSpec, str]) -> Dict[str, Any]:
    """Write one video.

    Args:
        task: Name, subset, number of the video, specification, and folder to
            write to.

    Returns:
        Its entry of the annotation file.
    """
    name, subset, index, spec, folder = task
    cv2.setNumThreads(1)
    rng = np.random.default_rng([GENERATOR_VERSION, spec.seed, index])
    frames, events = plan(rng, spec)
    states = np.concatenate([
        _passer_by(rng, spec, frames)[None],
        trajectories(rng, spec, frames, events)
    ])
    with whole_file(osp.join(folder, f'{name}.mp4'), '.part.mp4') as partial:
        writer = cv2.VideoWriter(
            str(partial), cv2.VideoWriter_fourcc(*'mp4v'), spec.fps,
            (spec.size, spec.size))
        if not writer.isOpened():
            raise OSError(f'cannot write {str(partial)!r}: this build of '
                          'OpenCV has no MPEG-4 encoder, or the folder is '
                          'not writable')
        for image in render(rng, spec, states):
            writer.write(image)
        writer.release()
    actions = [
        dict(
            segment=[event.start / spec.fps, event.stop / spec.fps],
            label=event.label)
        for event in sorted(events, key=lambda event: event.start)
        if event.label is not None
    ]
    return dict(
        subset=subset,
        duration=frames / spec.fps,
        fps=spec.fps,
        frame=frames,
        annotations=actions)


def is_finished(out_dir: str, spec: DemoSpec) -> bool:
    """Whether a folder holds exactly these videos already."""
    try:
        with open(osp.join(out_dir, STAMP), encoding='utf8') as file:
            stamp = json.load(file)
    except (OSError, json.JSONDecodeError):
        return False
    return stamp == _stamp(spec) and all(
        osp.isfile(osp.join(out_dir, 'videos', f'{name}.mp4'))
        for name, _ in spec.names())


def _stamp(spec: DemoSpec) -> Dict[str, Any]:
    return dict(version=GENERATOR_VERSION, **asdict(spec))


def make_dataset(out_dir: str, spec: DemoSpec = DemoSpec(),
                 num_workers: int = 2) -> str:
    """Write the demonstration data, unless they are there.

    Args:
        out_dir: Folder for ``videos/``, ``annotations.json`` and
            ``category_idx.txt``.
        spec: What to generate.
        num_workers: Processes.

    Returns:
        Path of the annotation file.
    """
    ann_file = osp.join(out_dir, 'annotations.json')
    if is_finished(out_dir, spec):
        return ann_file
    folder = osp.join(out_dir, 'videos')
    os.makedirs(folder, exist_ok=True)
    stamp = osp.join(out_dir, STAMP)
    if osp.exists(stamp):
        os.remove(stamp)
    tasks = [(name, subset, index, spec, folder)
             for index, (name, subset) in enumerate(spec.names())]
    if num_workers > 1:
        entries = track_parallel_progress(make_video, tasks, num_workers)
    else:
        entries = track_progress(make_video, tasks)
    database = {task[0]: entry for task, entry in zip(tasks, entries)}
    with open(ann_file, 'w', encoding='utf8') as file:
        json.dump(dict(version='demo', database=database), file)
    with open(osp.join(out_dir, 'category_idx.txt'), 'w') as file:
        file.write('\n'.join(CLASSES) + '\n')
    with open(stamp, 'w', encoding='utf8') as file:
        json.dump(_stamp(spec), file)
    return ann_file
