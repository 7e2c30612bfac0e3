"""Batches of any localizer: how long they are, one sample, and how to run."""
from typing import Any, List, Mapping, Sequence

import torch
from torch import Tensor, nn


def batch_size(data: Any) -> int:
    """Number of samples in a batch, whatever its entries are called.

    Args:
        data: What a data preprocessor returns: arguments of ``forward`` by
            name or by place.

    Returns:
        Length of its first list or tensor; 1 if there is none.
    """
    for value in _values(data):
        if isinstance(value, (list, tuple)) or (
                isinstance(value, Tensor) and value.dim()):
            return len(value)
    return 1


def one_sample(data: Any, place: int = 0) -> Any:
    """One sample of a batch, as a batch.

    Args:
        data: See :func:`batch_size`.
        place: Which one.

    Returns:
        The same with every tensor and list that holds one entry per sample
        cut down to that entry.
    """
    size = batch_size(data)

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: cut(entry) for key, entry in value.items()}
        per_sample = isinstance(value, (list, tuple)) or (
            isinstance(value, Tensor) and value.dim())
        if per_sample and len(value) == size:
            return value[place:place + 1]
        return value

    if isinstance(data, Mapping):
        return cut(data)
    if isinstance(data, (list, tuple)):
        return [cut(value) for value in data]
    return cut(data)


def run_model(model: nn.Module, data: Any, mode: str) -> Any:
    """Run a localizer on a batch as mmengine's ``BaseModel`` does.

    Args:
        model: The localizer.
        data: See :func:`batch_size`.
        mode: 'tensor', 'predict' or 'loss'.

    Returns:
        What it returns.
    """
    if isinstance(data, Mapping):
        return model(**data, mode=mode)
    if isinstance(data, (list, tuple)):
        return model(*data, mode=mode)
    return model(data, mode=mode)


def joined_samples(outputs: Sequence[Any]) -> Any:
    """What a module returned sample by sample, as of the whole batch.

    Args:
        outputs: One per sample, each of a batch of one.

    Returns:
        Tensors joined along their first axis, also inside tuples, lists and
        dicts; of anything else the first.
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.dim() else first
    if isinstance(first, Mapping):
        return {key: joined_samples([o[key] for o in outputs])
                for key in first}
    if isinstance(first, (list, tuple)):
        entries: List[Any] = [
            joined_samples(entry) for entry in zip(*outputs)
        ]
        return entries if isinstance(first, list) else tuple(entries)
    return first


def _values(data: Any) -> Sequence[Any]:
    if isinstance(data, Mapping):
        return list(data.values())
    return data if isinstance(data, (list, tuple)) else [data]
