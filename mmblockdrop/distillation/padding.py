"""Which of the features of a batch show real video.

A window that reaches beyond its video repeats the last frame. The samples
say by ``valid_steps`` how many of their ``window_size`` steps are real; here
that becomes rows and tokens of what an encoder computes.
"""
from typing import Optional, Tuple

from torch import Tensor, nn
import torch


def real_times(rows: int, times: int, data_samples: list,
               student: nn.Module) -> Optional[Tensor]:
    """Tell real video from padding.

    The rows are the clips of the windows, ``samples * clips`` of them with
    the clips of a window next to each other; each clip is ``times`` equal
    pieces. A piece counts if it begins in real video.

    Args:
        rows: Length of the first axis of the features.
        times: Pieces of time of a row; 1 takes or leaves whole clips.
        data_samples: The samples of the batch.
        student: Tells ``window_size`` where the samples do not.

    Returns:
        Bool ``[rows, times]`` on the CPU. None where all counts: nothing is
        padded, the samples do not tell, or their number does not divide the
        rows.
    """
    if not data_samples or rows % len(data_samples):
        return None
    size = getattr(student, 'window_size', None)
    sizes = [sample.get('window_size', size) for sample in data_samples]
    if None in sizes:
        return None
    valid = [s.get('valid_steps', n) for s, n in zip(data_samples, sizes)]
    if all(v >= n for v, n in zip(valid, sizes)):
        return None
    pieces = rows // len(data_samples) * times
    begin = torch.arange(pieces) * torch.tensor(sizes).unsqueeze(1)
    real = begin < torch.tensor(valid).unsqueeze(1) * pieces
    return real.reshape(rows, times)


def clip_times(model: nn.Module, path: str) -> Optional[int]:
    """Times of a clip's tokens, where the encoder tells.

    Args:
        model: The localizer.
        path: Dotted path of a module inside the encoder.

    Returns:
        Number of times, the slowest part of the order of the tokens. It is
        read from the encoder's position table (``pos_embed`` over
        ``grid_size``, as mmaction2's transformers keep them); None where there
        is none.
    """
    while path:
        path = path.rpartition('.')[0]
        module = model.get_submodule(path)
        table = getattr(module, 'pos_embed', None)
        grid = getattr(module, 'grid_size', None)
        if isinstance(table, Tensor) and grid is not None:
            places = grid[0] * grid[1]
            tokens = table.shape[1]
            return tokens // places if tokens % places == 0 else None
    return None


def select_real(student: Tensor, teacher: Tensor,
                real: Tensor) -> Tuple[Tensor, Tensor]:
    """Take what shows real video from two features.

    Args:
        student: ``[rows, times, ...]``, or ``[rows, ...]`` for a mask of whole
            rows.
        teacher: The same shape.
        real: bool ``[rows, times]``, or ``[rows]``.

    Returns:
        ``[n, ...]`` each, views where possible.
    """
    student, teacher = (x.flatten(0, real.dim() - 1) if real.dim() > 1 else x
                        for x in (student, teacher))
    index = real.flatten().nonzero().squeeze(1)
    if len(index) and int(index[-1]) == len(index) - 1:
        return student[:len(index)], teacher[:len(index)]
    index = index.to(student.device)
    return student.index_select(0, index), teacher.index_select(0, index)
