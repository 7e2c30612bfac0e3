"""Resume mmengine's checkpoints on torch >= 2.6 without running their code.

Defect: since torch 2.6 ``torch.load`` refuses everything that is not weights.
The checkpoints of mmengine 0.10.7 hold the logger's ``HistoryBuffer``, numpy
arrays and scalars, so ``Runner.resume`` fails. (mmengine 0.11.0rc0 switches
the protection off; a checkpoint may then run any code.) Checkpoints from a
URL go through ``torch.hub``, which never had the protection on.

Mend: while mmengine loads a checkpoint, the few names that its own
checkpoints contain are allowed, and URLs are loaded like files. Everything
else stays refused, by name. ``getattr``, by which pickle refers to the methods
of ``HistoryBuffer``, is replaced by a function that knows these alone.

Unnecessary with: a release of mmengine whose checkpoints torch accepts as
weights. Neither 0.10.7 nor 0.11.0rc0 does.
"""
import argparse
import functools
import pickle
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Callable, Iterator, List, Tuple

from packaging.version import Version

from .importing import after_import

#: Statistics that every ``HistoryBuffer`` registers.
STATISTICS = ('min', 'max', 'current', 'mean')
#: numpy types whose arrays and scalars may stand in a checkpoint: booleans,
#: integers, floating point and text. No objects.
DTYPES = '?bhilqBHILQefdUS'


def statistic_of_history_buffer(owner: Any, name: str) -> Callable:
    """What ``getattr`` may do in a checkpoint: fetch a statistics method.

    Args:
        owner: Must be ``HistoryBuffer`` itself.
        name: One of ``STATISTICS``.

    Returns:
        The method.

    Raises:
        pickle.UnpicklingError: For anything else.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(
            f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint: '
            f'only HistoryBuffer.{", HistoryBuffer.".join(STATISTICS)} are')
    return getattr(HistoryBuffer, name)


def allowed_globals() -> List[Tuple[Callable, str]]:
    """Names that mmengine's own checkpoints contain, and settings of others.

    Returns:
        What is called, and the name it has in the file. numpy 1 and 2 write
        different names for the same two functions.
    """
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer
    make_array = np.empty(0).__reduce__()[0]
    make_scalar = np.float64(0).__reduce__()[0]
    allowed = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (statistic_of_history_buffer, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
        (argparse.Namespace, 'argparse.Namespace'),
    ]
    for core in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.append((make_array, f'{core}._reconstruct'))
        allowed.append((make_scalar, f'{core}.scalar'))
    for kind in {type(np.dtype(code)) for code in DTYPES}:
        allowed.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    return allowed


@contextmanager
def mmengine_globals_allowed(filename: str) -> Iterator[None]:
    """Allow, for a while, the names of mmengine's own checkpoints.

    Args:
        filename: What is loaded, for the error.

    Yields:
        On torch below 2.6 nothing is allowed beyond its own list.

    Raises:
        pickle.UnpicklingError: If the file contains any other name.
    """
    import torch
    if Version(torch.__version__) < Version('2.6'):
        yield  # such torch knows no further names; plain weights load
        return
    from torch.serialization import get_safe_globals, safe_globals
    known = get_safe_globals()
    # Leaving the context forgets its names, also those the user had added.
    new = [entry for entry in allowed_globals() if entry not in known]
    with safe_globals(new):
        try:
            yield
        except pickle.UnpicklingError as error:
            reason = str(error).split('WeightsUnpickler error:')[-1]
            raise pickle.UnpicklingError(
                f'{filename} was refused, and none of its code has run: '
                f'{" ".join(reason.split())}') from error


class AllowListUnpickler(pickle.Unpickler):
    """Unpickler for torch below 2.6, which cannot be told further names."""

    def find_class(self, module: str, name: str) -> Any:
        from torch._weights_only_unpickler import _get_allowed_globals
        known = dict(_get_allowed_globals())
        known.update((path, value) for value, path in allowed_globals())
        module = module.replace('__builtin__', 'builtins')  # of Python 2
        if f'{module}.{name}' not in known:
            raise pickle.UnpicklingError(f'{module}.{name} is not allowed in '
                                         'a checkpoint')
        return known[f'{module}.{name}']


def load_file(path: str) -> Any:
    """Load a checkpoint as data: tensors, containers, and allowed names.

    Args:
        path: The file.

    Returns:
        Its content, on the CPU.

    Raises:
        pickle.UnpicklingError: It contains any other name.
    """
    import torch
    if Version(torch.__version__) < Version('2.6'):
        return torch.load(path, 'cpu', pickle_module=_allow_list_pickle())
    with mmengine_globals_allowed(path):
        return torch.load(path, 'cpu', weights_only=True)


def _allow_list_pickle() -> ModuleType:
    """What ``torch.load`` takes in the place of pickle."""
    module = ModuleType('allow_list_pickle')
    module.Unpickler = AllowListUnpickler
    module.load = lambda file, **kwargs: AllowListUnpickler(
        file, **kwargs).load()
    return module


def _load_with_allow_list(checkpoint: ModuleType) -> None:
    """Wrap the one method through which mmengine loads checkpoints."""
    import torch
    if Version(torch.__version__) < Version('2.6'):
        return
    loader = checkpoint.CheckpointLoader
    load = loader.load_checkpoint.__func__

    @functools.wraps(load)
    def load_checkpoint(cls, filename, *args, **kwargs):
        with mmengine_globals_allowed(filename):
            return load(cls, filename, *args, **kwargs)

    loader.load_checkpoint = classmethod(load_checkpoint)
    checkpoint.load_url = functools.partial(
        checkpoint.load_url, weights_only=True)


def mend() -> None:
    """Wait for mmengine's checkpoint module."""
    after_import('mmengine.runner.checkpoint', _load_with_allow_list)
