"""Read a checkpoint, compare it with a model, and load it strictly."""
from dataclasses import dataclass, field
from typing import (Any, Collection, Dict, List, Mapping, Optional, Sequence,
                    Tuple, Union)

from mmblockdrop.compat.checkpoint import load_file

import torch
from torch import Tensor, nn

from .io import PathLike, whole_file
from .messages import require_file

State = Dict[str, Tensor]
Shapes = Mapping[str, Union[Tensor, Sequence[int]]]
#: Keys under which a checkpoint holds its state dict, also inside each other.
WRAPPERS = ('state_dict', 'model', 'module')
#: Ways in which two state dicts can differ.
KINDS = ('missing', 'unexpected', 'reshaped', 'unusable')
#: Parts of the keys of a layer that LoRA wraps.
LORA_PARTS = ('.base_layer.', '.lora_A.', '.lora_B.')


def read_checkpoint(path: PathLike, key: str = 'checkpoint') -> Any:
    """Read a checkpoint without running code from it.

    Tensors, numbers, text, containers, and the few harmless names that
    mmengine and ``argparse`` write are allowed.

    Args:
        path: File, or a URL that mmengine can open.
        key: Config key or argument that gave it, for errors.

    Returns:
        Its content, on the CPU.

    Raises:
        FileNotFoundError: There is no such file; names the nearest.
        IsADirectoryError: It is a folder.
        ValueError: It is not a checkpoint, damaged, or holds other names,
            which the error gives.
    """
    require_file(path, key)
    try:
        if '://' in str(path):
            from mmengine.runner.checkpoint import _load_checkpoint
            return _load_checkpoint(str(path), map_location='cpu')
        return load_file(str(path))
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f'{key}={str(path)!r} cannot be read: '
                         f'{last_line(error)}') from error


def write_checkpoint(content: Any, path: PathLike,
                     suffix: str = '.tmp') -> None:
    """Write a checkpoint whole or not at all.

    Args:
        content: What ``torch.save`` takes.
        path: The file, in a folder that exists.
        suffix: See :func:`.io.whole_file`.

    Raises:
        OSError: The disk is full, or another reason of the system, where
            torch says "unexpected pos"; ``filename`` is the file.
    """
    with whole_file(path, suffix) as temporary, open(temporary, 'wb') as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            cause = error.__context__
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror,
                              str(path)) from error
            raise


def last_line(error: BaseException) -> str:
    """What an error says in the end.

    Args:
        error: The error.

    Returns:
        Its last line, or the name of its class.
    """
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def unwrap_state(content: Any) -> Tuple[Any, str]:
    """Find the state dict of a checkpoint.

    Args:
        content: What :func:`read_checkpoint` returned.

    Returns:
        The innermost mapping, and the keys it stood under, joined by points
        (``''`` for a bare state dict).
    """
    path: List[str] = []
    while isinstance(content, dict):
        inside = [k for k in WRAPPERS if isinstance(content.get(k), dict)]
        if not inside:
            break
        path.append(inside[0])
        content = content[inside[0]]
    return content, '.'.join(path)


def state_dict_of(content: Any, source: str = 'The checkpoint') -> State:
    """State dict of a checkpoint, ``module.`` taken off its names.

    Args:
        content: What :func:`read_checkpoint` returned.
        source: Config key and file that gave it, for errors.

    Returns:
        Names and values.

    Raises:
        ValueError: It holds no state dict.
    """
    state, _ = unwrap_state(content)
    if not isinstance(state, dict) or not any(
            isinstance(v, Tensor) for v in state.values()):
        found = list(state)[:8] if isinstance(
            state, dict) else type(state).__name__
        raise ValueError(f'{source} holds no weights: found {found}, expected '
                         f'a state dict, bare or under one of {WRAPPERS}')
    return {str(name).removeprefix('module.'): v for name, v in state.items()}


@dataclass(frozen=True)
class StateDifference:
    """Where two state dicts differ. True if they do.

    Args:
        missing: Names that the second one lacks.
        unexpected: Names that only the second one has.
        reshaped: Names of values of different shapes, with both shapes.
        unusable: Names of values of the second one that are no weights, and
            why: integers where the first has floating-point numbers, NaN or
            infinite.
    """
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    reshaped: List[str] = field(default_factory=list)
    unusable: List[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def describe(self, limit: int = 4) -> str:
        """The difference in one line.

        Args:
            limit: Names of each kind that are listed.

        Returns:
            ``'2 missing: a, b; 1 unexpected: c'``.
        """
        parts = []
        for kind in KINDS:
            names = getattr(self, kind)
            if names:
                more = ', ...' if len(names) > limit else ''
                parts.append(f'{len(names)} {kind}: '
                             f'{", ".join(names[:limit])}{more}')
        return '; '.join(parts)


def compare_states(own: Shapes,
                   given: Shapes,
                   prefixes: Sequence[str] = (),
                   new_lora: bool = False) -> StateDifference:
    """Compare names, shapes and types of two state dicts; look for NaN.

    A missing count of batches is no difference: torch leaves it as it is.

    Args:
        own: State dict of a model, or its shapes.
        given: State dict of a checkpoint.
        prefixes: Modules to compare, as dotted paths. Defaults to all.
        new_lora: Whether LoRA of the model may stand over plain layers of
            the checkpoint, and so need no values.

    Returns:
        The difference, names sorted.
    """
    starts = tuple(f'{prefix}.' for prefix in prefixes) or ('', )
    names = sorted(k for k in {*own, *given} if k.startswith(starts))
    return StateDifference(
        missing=[
            k for k in names
            if k not in given and not k.endswith('.num_batches_tracked')
            and not (new_lora and _stands_over_plain_layer(k, given))
        ],
        unexpected=[
            k for k in names
            if k not in own and not (new_lora and _wrapped(k) in own)
        ],
        reshaped=[
            f'{k} {_shape(given[k])} instead of {_shape(own[k])}'
            for k in names
            if k in own and k in given and _shape(own[k]) != _shape(given[k])
        ],
        unusable=[
            f'{k} {why}' for k in names if k in given
            and (why := _unusable(own.get(k, own.get(_wrapped(k))), given[k]))
        ])


def _unusable(own: Any, given: Any) -> Optional[str]:
    """Why a value of a checkpoint cannot be the value of a model."""
    if own is None or not isinstance(given, Tensor):
        return None  # unexpected or reshaped
    if given.layout is not torch.strided or given.is_meta:
        return f'is no plain tensor, but {given.layout} on {given.device}'
    expected = own.dtype if isinstance(own, Tensor) else torch.float32
    if (expected.is_floating_point, expected.is_complex) != (
            given.dtype.is_floating_point, given.dtype.is_complex):
        return f'{str(given.dtype)[6:]} instead of {str(expected)[6:]}'
    if not given.is_floating_point():
        return None
    narrow = given.element_size() == 1
    finite = torch.isfinite(given.half() if narrow else given)
    if finite.all() or (isinstance(own, Tensor) and own.shape == given.shape
                        and torch.equal(torch.isfinite(own).cpu(),
                                        finite.cpu())):
        return None  # or minus infinity in both, as in a mask of attention
    count = finite.numel() - int(finite.sum())
    return f'{count} of {finite.numel()} values are NaN or infinite'


def _shape(value: Any) -> Any:
    """Shape of a tensor, or the type of anything else."""
    shape = getattr(value, 'shape', value)
    return tuple(shape) if isinstance(shape,
                                      (tuple, list)) else type(value).__name__


def _wrapped(name: str) -> str:
    """Name of a plain layer's parameter once LoRA wraps the layer."""
    layer, _, parameter = name.rpartition('.')
    return f'{layer}.base_layer.{parameter}'


def _stands_over_plain_layer(name: str, given: Collection[str]) -> bool:
    """Whether a LoRA name stands over a plain layer of the checkpoint."""
    for part in LORA_PARTS:
        if part in name:
            return f'{name.split(part)[0]}.weight' in given
    return False


def load_strictly(model: nn.Module,
                  state: State,
                  source: str,
                  hint: str = '') -> None:
    """Load a state dict; names, shapes and types must agree with the model's.

    LoRA of the model may stand over plain layers of the state dict and then
    keeps its values.

    Args:
        model: Model to load into.
        state: State dict.
        source: Config key and file that gave it, for errors.
        hint: More for the error.

    Raises:
        ValueError: Names, shapes or types differ, or a weight is NaN or
            infinite; lists them. Nothing has been loaded then.
    """
    check_fit(model, state, source, hint)
    model.load_state_dict(state)


def check_fit(model: nn.Module,
              state: State,
              source: str,
              hint: str = '',
              partially: bool = False) -> None:
    """Check that a state dict fits a model; loads nothing.

    Args:
        model: The model.
        state: State dict.
        source: Config key and file that gave it, for errors.
        hint: More for the error.
        partially: Accept missing, unexpected and reshaped values as long as
            one value fits.

    Raises:
        ValueError: See :func:`load_strictly`.
    """
    own = model.state_dict()
    difference = compare_states(own, state, new_lora=True)
    if partially:
        loose = {*difference.unexpected, *(
            entry.split(' ')[0] for entry in difference.reshaped)}
        if not {*state} - loose:
            hint = f'{hint}; none of its values fits'
        elif not difference.unusable:
            return
    if difference:
        raise ValueError(f'{source} does not fit {type(model).__name__}: '
                         f'{difference.describe()}{hint}')
