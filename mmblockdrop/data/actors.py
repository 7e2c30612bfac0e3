"""Motions and pixels of the demonstration videos.

An actor is a bar with a dot at one end. All classes are done by the same
actors, so that a class shows in how an actor moves over time and in no single
frame. Every class has an imitation that begins in the same way and turns
back half way; it is background.
"""
from typing import Callable, Dict, List, NamedTuple, Tuple

import cv2
import numpy as np

#: Sub-pixel bits of OpenCV's drawing functions.
SHIFT = 4


class Pose(NamedTuple):
    """Where an actor is relative to its place, over T frames.

    Args:
        dx, dy (ndarray): Pixels [T], to the right and down.
        angle (ndarray): Radians [T], clockwise.
        scale (ndarray): Factor of the size [T].
    """
    dx: np.ndarray
    dy: np.ndarray
    angle: np.ndarray
    scale: np.ndarray


class Motion(NamedTuple):
    """A class of actions.

    Args:
        shortest, longest (float): Seconds.
        pose (Callable): From progress [T] in [0, 1], direction (the angle
            towards the middle of the scene, radians) and seconds to a pose.
        imitation (Callable): Same, for the part that is background.
        imitation_share (float): Length of the imitation over that of the
            action.
    """
    shortest: float
    longest: float
    pose: Callable[[np.ndarray, float, float], Pose]
    imitation: Callable[[np.ndarray, float, float], Pose]
    imitation_share: float


def _there_and_back(u: np.ndarray) -> np.ndarray:
    return 1 - np.abs(2 * u - 1)


def _pose(u: np.ndarray, dx=0., dy=0., angle=0., scale=1.) -> Pose:
    return Pose(*(np.broadcast_to(np.asarray(v, dtype=float), u.shape)
                  for v in (dx, dy, angle, scale)))


def _circle(sign: int, reach: Callable) -> Callable:
    """A loop through the actor's place; its centre lies towards the middle."""

    def pose(u: np.ndarray, direction: float, seconds: float) -> Pose:
        start = direction + np.pi
        angle = start + sign * 2 * np.pi * reach(u)
        return _pose(u, 9 * (np.cos(angle) - np.cos(start)),
                     9 * (np.sin(angle) - np.sin(start)))

    return pose


def _spin(sign: int, reach: Callable) -> Callable:
    """A full turn on the spot."""
    return lambda u, direction, seconds: _pose(
        u, angle=sign * 2 * np.pi * reach(u))


def _hops(count: int) -> Callable:
    return lambda u, direction, seconds: _pose(
        u, dy=-10 * np.abs(np.sin(count * np.pi * u)))


def _pulses(count: int) -> Callable:
    return lambda u, direction, seconds: _pose(
        u, scale=1 + 0.7 * np.sin(count * np.pi * u)**2)


def _shake(u: np.ndarray, direction: float, seconds: float) -> Pose:
    return _pose(u, 5 * np.sin(2 * np.pi * max(2, round(3 * seconds)) * u))


def _jerk(u: np.ndarray, direction: float, seconds: float) -> Pose:
    return _pose(u, 5 * np.sin(2 * np.pi * u))


def _glide(height: float) -> Callable:
    """Out by a straight or toothed line, back by the same."""

    def pose(u: np.ndarray, direction: float, seconds: float) -> Pose:
        along = 22 * _there_and_back(u)
        across = height * (np.abs((8 * u + 0.5) % 2 - 1) - 0.5) * 2
        across = across * np.minimum(1, 16 * np.minimum(u, 1 - u))
        cos, sin = np.cos(direction), np.sin(direction)
        return _pose(u, along * cos - across * sin,
                     along * sin + across * cos)

    return pose


def _half(u: np.ndarray) -> np.ndarray:
    return _there_and_back(u) / 2


def _full(u: np.ndarray) -> np.ndarray:
    return u


#: ``swap`` is done by two actors and has no pose of its own.
SWAP = 'swap'
MOTIONS: Dict[str, Motion] = {
    'shake': Motion(0.6, 1.2, _shake, _jerk, 0.4),
    'pulse': Motion(0.8, 1.6, _pulses(2), _pulses(1), 0.5),
    'bounce': Motion(1.2, 2.4, _hops(3), _hops(1), 0.34),
    'spin_cw': Motion(1.0, 2.2, _spin(1, _full), _spin(1, _half), 1.0),
    'spin_ccw': Motion(1.0, 2.2, _spin(-1, _full), _spin(-1, _half), 1.0),
    'circle_cw': Motion(1.6, 3.2, _circle(1, _full), _circle(1, _half), 1.0),
    'circle_ccw': Motion(1.6, 3.2, _circle(-1, _full), _circle(-1, _half),
                         1.0),
    'zigzag': Motion(2.0, 4.0, _glide(5.), _glide(0.), 0.8),
    SWAP: Motion(3.0, 6.0, None, None, 0.8),
}
CLASSES: Tuple[str, ...] = tuple(MOTIONS)


def half_turn(places: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Two places turned about their middle.

    Args:
        places (ndarray): [2, 2], pixels.
        reach (ndarray): Share of the half turn [T].

    Returns:
        ndarray: [2, T, 2], pixels.
    """
    middle = places.mean(0)
    angle = np.pi * reach
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = (places - middle).T
    return np.stack([
        np.stack([x * cos - y * sin, x * sin + y * cos], -1) + middle
        for x, y in zip(dx, dy)
    ])


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
        image (ndarray): uint8 [H, W, 3].
        centre (tuple of 2 floats): Pixels, x and y.
        angle (float): Radians, clockwise from the right.
        scale (float): Factor of the size.
        colours (list of 2 tuples): Of the bar and of its dot.
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
