"""Tiny videos whose frames tell their number."""
from fractions import Fraction

import av
import cv2
import numpy as np

#: A frame shows the bits of its number as stripes of this many pixels.
STRIPE, BITS = 4, 8


def write_video(path, frames: int = 24, fps: float = 10.) -> None:
    """A video of 32 x 32 pixels that is easily told frame by frame."""
    size = STRIPE * BITS
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (size, size))
    for index in range(frames):
        stripes = (index >> np.arange(BITS)) % 2 * 255
        row = np.repeat(stripes, STRIPE).astype(np.uint8)
        writer.write(np.tile(row[None, :, None], (size, 1, 3)))
    writer.release()


def frame_numbers(inputs) -> np.ndarray:
    """Numbers of the frames of packed inputs [1, 3, F, H, W]."""
    rows = inputs[0].float().mean(dim=(0, 2))  # [F, W]
    stripes = rows.reshape(len(rows), BITS, -1).mean(-1) > 127
    return (stripes.numpy() << np.arange(BITS)).sum(-1)


PIPELINE = [
    dict(type='mmblockdrop.OpenVideo'),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='mmaction.DecordDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs')
]


def write_moments(path, times, numbers=None, fps=None) -> None:
    """A lossless video of 64 x 64 pixels with given time stamps.

    Args:
        path: The file.
        times: When each frame is shown, in seconds.
        numbers: The number that each frame shows, below 256; without it the
            tenths of a second since the start.
        fps: Unit of the time stamps, 1 / fps. None is a millisecond.
    """
    tick = Fraction(1, 1000) if fps is None else 1 / Fraction(
        fps).limit_denominator(1001)
    if numbers is None:
        numbers = [int(time * 10 + 1e-3) for time in times]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(
            'libx264', rate=round(1 / tick) if fps else 30,
            options={'qp': '0', 'bf': '0'})
        stream.width = stream.height = 64
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.time_base = tick
        for time, number in zip(times, numbers):
            bits = (number >> np.arange(BITS)) % 2 * 255
            row = np.repeat(bits, 8).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(
                np.tile(row[None, :, None], (64, 1, 3)), 'rgb24')
            frame.time_base, frame.pts = tick, round(time / tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def moments(name: str, seconds: float = 8.):
    """Arguments of :func:`write_moments` for one film at several rates.

    Args:
        name: ``'10'``, ``'20'``, ``'29.97'`` or ``'variable'``.
        seconds: Length of the film, ten pictures a second.
    """
    pictures = np.arange(round(seconds * 10))
    if name == 'variable':  # every picture once, some twice or more
        extra = np.random.default_rng(0).uniform(0, seconds, 60).round(3)
        times = np.unique(np.concatenate([pictures / 10, extra]))
        return dict(times=times)
    fps = Fraction(30000, 1001) if name == '29.97' else Fraction(name)
    times = np.arange(round(seconds * float(fps))) / float(fps)
    # As ffmpeg repeats pictures: each begins with the nearest frame.
    begins = np.round(pictures / 10 * float(fps))
    numbers = np.searchsorted(begins, np.arange(len(times)), 'right') - 1
    return dict(times=times, numbers=numbers, fps=fps)


RATES = ('10', '20', '29.97', 'variable')
