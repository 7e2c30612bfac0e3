"""Configs that may build a model with one of its stacks shortened."""
import copy
import inspect
from typing import Any, Dict, Iterator, List, Tuple

from mmblockdrop.compression import DroppedBlock

from torch import nn

#: Where a value stands in a config: keys of dicts and places in lists.
Place = Tuple[Any, ...]
Edit = Dict[Place, Any]


class Stack:
    """Blocks of one container, some of them dropped.

    Args:
        path: Dotted path of the container.
        container: The container itself.
    """

    def __init__(self, path: str, container: nn.Module) -> None:
        self.path = path
        self.total = len(container)
        self.kept = [
            i for i, block in enumerate(container)
            if not isinstance(block, DroppedBlock)
        ]

    @property
    def dropped(self) -> List[int]:
        """Numbers of the blocks that are gone."""
        return [i for i in range(self.total) if i not in self.kept]


def owners(model: nn.Module, cfg: dict,
           path: str) -> List[Tuple[Place, dict, nn.Module]]:
    """Configs of the modules around a stack, the nearest first.

    Args:
        model: The model.
        cfg: Its config.
        path: Dotted path of the stack.

    Returns:
        Place of the config in ``cfg``, the config, and the module that was
        built from it.
    """
    found = [((), cfg, model)]
    place: Place = ()
    for part in path.split('.'):
        value = found[0][1].get(part)
        if not isinstance(value, dict) or 'type' not in value:
            break
        place += (part, )
        module = model.get_submodule('.'.join(place))
        found.insert(0, (place, value, module))
    return found


def edits(model: nn.Module, cfg: dict, stack: Stack) -> Iterator[dict]:
    """Configs that may build the model with a stack shortened.

    Args:
        model: The model before.
        cfg: Its config.
        stack: What was dropped.

    Yields:
        A config, the likelier first.
    """
    for place, node, module in owners(model, cfg, stack.path):
        values = arguments(node, module)
        lists = dict(_per_block(values, stack))
        numbers = dict(_numbers(values, stack))
        options: List[Edit] = [{}]
        options += [e for e in (numbers, lists, {**numbers, **lists}) if e]
        options += [{p: v} for p, v in lists.items() if len(lists) > 1]
        for length in _lengths(values, stack):
            for more in options:
                if not _overlap(*length, *more):
                    yield _edited(cfg, place, values, {**more, **length})


def _overlap(*places: Place) -> bool:
    """Whether one of the places lies inside another."""
    return any(a != b and a == b[:len(a)] for a in places for b in places)


def arguments(cfg: dict, module: nn.Module) -> Dict[str, Any]:
    """Arguments that a module was built with, defaults included.

    Names of presets (``arch='small'``) are replaced by their content, which
    mmaction2 and mmpretrain keep in a table of the class; None, and True
    where it stands for a list, by what the module made of it.

    Args:
        cfg: Config of the module.
        module: What was built from it.

    Returns:
        Name to value.
    """
    values: Dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if '__init__' in vars(kind):
            for name, p in inspect.signature(
                    kind.__init__).parameters.items():
                if p.default is not inspect.Parameter.empty:
                    values[name] = p.default
    values.update({k: v for k, v in cfg.items() if k != 'type'})
    for name, value in list(values.items()):
        built = getattr(module, name, None)
        if value is None or (value is True and isinstance(built, list)):
            values[name] = built
        elif isinstance(value, str):
            values[name] = _preset(module, value)
    return {k: v for k, v in values.items() if is_plain_value(v)}


def _preset(module: nn.Module, name: str) -> Any:
    for kind in type(module).__mro__:
        for table in vars(kind).values():
            entry = table.get(name.lower()) if isinstance(table,
                                                          dict) else None
            if isinstance(entry, dict):
                return copy.deepcopy(entry)
    return name


def is_plain_value(value: Any) -> bool:
    """Whether a value can stand in a config: numbers, text, lists, dicts."""
    if isinstance(value, dict):
        return all(map(is_plain_value, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_plain_value, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _walk(values: Any, place: Place = ()) -> Iterator[Tuple[Place, Any]]:
    """All values inside nested dicts and lists, with their places."""
    yield place, values
    pairs: Any = ()
    if isinstance(values, dict):
        pairs = values.items()
    elif isinstance(values, (list, tuple)):
        pairs = enumerate(values)
    for key, value in pairs:
        yield from _walk(value, (*place, key))


def _lengths(values: Dict[str, Any], stack: Stack) -> Iterator[Edit]:
    """Every number that may be the length of the stack, set to the new."""
    found = [
        place for place, value in _walk(values)
        if value == stack.total and type(value) is int
    ]
    likely = ('depth', 'layers', 'blocks', 'arch')
    found.sort(key=lambda p: (not any(w in str(p[0]) for w in likely),
                              len(p)))
    for place in found:
        yield {place: len(stack.kept)}


def _per_block(values: Dict[str, Any],
               stack: Stack) -> Iterator[Tuple[Place, Any]]:
    """Lists with one entry per block, without those of dropped blocks."""
    for place, value in _walk(values):
        if isinstance(value, (list, tuple)) and len(value) == stack.total:
            yield place, type(value)(value[i] for i in stack.kept)


def _numbers(values: Dict[str, Any],
             stack: Stack) -> Iterator[Tuple[Place, Any]]:
    """Lists of block numbers, renumbered."""
    for place, value in _walk(values):
        if (place and isinstance(value, (list, tuple))
                and str(place[-1]).endswith('indices')
                and all(i in stack.kept for i in value)):
            yield place, type(value)(stack.kept.index(i) for i in value)


def _edited(cfg: dict, place: Place, values: Dict[str, Any],
            edit: Edit) -> dict:
    """A copy of a config with some arguments of one of its modules set."""
    cfg = copy.deepcopy(cfg)
    node = cfg
    for key in place:
        node = node[key]
    for name in {keys[0] for keys in edit}:
        value = copy.deepcopy(values[name])
        for keys, new in edit.items():
            if keys[0] == name:
                value = _put(value, keys[1:], new)
        node[name] = value
    return cfg


def _put(value: Any, keys: Place, new: Any) -> Any:
    if not keys:
        return new
    if isinstance(value, tuple):
        entries = list(value)
        entries[keys[0]] = _put(entries[keys[0]], keys[1:], new)
        return tuple(entries)
    value[keys[0]] = _put(value[keys[0]], keys[1:], new)
    return value
