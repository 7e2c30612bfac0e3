"""Motions and pixels of the demonstration videos.

An actor is a bar with a dot at one end. An action is one gesture, a pause in
which the actor stays large, and another gesture: which action it is shows at
its two ends, seconds apart, and in no single moment. Imitations, which are
background, have only one of the two gestures.
"""
from typing import Callable, Dict, List, NamedTuple, Tuple

import cv2
import numpy as np

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
