"""Read a checkpoint, compare it with a model, and load it strictly."""
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, List, Mapping, Sequence, Tuple, Union

from mmblockdrop.compat.checkpoint import load_file

from torch import Tensor, nn

from .io import PathLike
from .messages import require_file

State = Dict[str, Tensor]
Shapes = Mapping[str, Union[Tensor, Sequence[int]]]
#: Keys under which a checkpoint holds its state dict, also inside each other.
WRAPPERS = ('state_dict', 'model', 'module')
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


def state_dict_of(content: Mapping[str, Any]) -> State:
    """State dict of a checkpoint, ``module.`` taken off its names.

    Args:
        content: What :func:`read_checkpoint` returned.

    Returns:
        Names and values.
    """
    state, _ = unwrap_state(content)
    return {name.removeprefix('module.'): v for name, v in state.items()}


@dataclass(frozen=True)
class StateDifference:
    """Where two state dicts differ. True if they do.

    Args:
        missing: Names that the second one lacks.
        unexpected: Names that only the second one has.
        reshaped: Names of values of different shapes, with both shapes.
    """
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    reshaped: List[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def describe(self, limit: int = 4) -> str:
        """The difference in one line.

        Args:
            limit: Names of each kind that are listed.

        Returns:
            ``'2 missing: a, b; 1 unexpected: c'``.
        """
        parts = []
        for kind in ('missing', 'unexpected', 'reshaped'):
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
    """Compare the names and shapes of two state dicts.

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
            k for k in names if k not in given
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
        ])


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
    """Load a state dict; names and shapes must agree with the model's.

    LoRA of the model may stand over plain layers of the state dict and then
    keeps its values.

    Args:
        model: Model to load into.
        state: State dict.
        source: Config key and file that gave it, for errors.
        hint: More for the error.

    Raises:
        ValueError: Names or shapes differ; lists them. Nothing has been
            loaded then.
    """
    difference = compare_states(model.state_dict(), state, new_lora=True)
    if difference:
        raise ValueError(f'{source} does not fit {type(model).__name__}: '
                         f'{difference.describe()}{hint}')
    model.load_state_dict(state)
