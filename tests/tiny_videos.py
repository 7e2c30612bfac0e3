"""Tiny videos whose frames tell their number."""
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
