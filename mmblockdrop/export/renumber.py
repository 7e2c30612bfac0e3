"""The shorter model that a config can build, with the blocks renumbered."""
import copy
import inspect
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mmblockdrop.blocks import DroppedBlock
from mmblockdrop.registry import MODELS
from .inputs import difference

CONTAINERS = (nn.ModuleList, nn.Sequential)
#: Where a value stands in a config: keys of dicts and places in lists.
Place = Tuple[Any, ...]
Edit = Dict[Place, Any]
HELP = ('ONNX needs no config: with --onnx that file is written all the '
        'same. Or load the checkpoint with mmblockdrop (apis.init_localizer), '
        'or compress again with train_cfg.protect naming the blocks that '
        'must stay.')


class ExportError(ValueError):
    """The shorter model cannot be written as a config; says what to do."""


class Stack:
    """Blocks of one container, some of them dropped.

    Args:
        path (str): Dotted path of the container.
        container (nn.Module): The container itself.
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
        """List[int]: Numbers of the blocks that are gone."""
        return [i for i in range(self.total) if i not in self.kept]


def renumber(model: nn.Module,
             cfg: dict,
             inputs: Tensor,
             tolerance: float = 1e-5) -> Tuple[nn.Module, dict, List[Stack]]:
    """Build a model that has only the blocks that are left.

    Which argument gives the length of a stack is found by trying: every
    number in the config of the module that owns the stack (and in the
    defaults of its constructor) that equals the old length is set to the
    new one, arguments with one entry per block lose theirs, and the model
    is built. The first that has the parameters, and on ``inputs`` the
    outputs, of the compressed model is it. So this needs to know no class.

    Args:
        model (nn.Module): Compressed model, LoRA merged, on the CPU.
        cfg (dict): Config of the model before compression, of plain types.
        inputs (Tensor): What both models are run on.
        tolerance (float): Largest difference allowed.

    Returns:
        tuple[nn.Module, dict, list[Stack]]: The shorter model with the
        weights, its config, and what was dropped where.

    Raises:
        ExportError: No config builds the shorter model.
    """
    short = copy.deepcopy(model)
    short.eval()
    stacks = take_out(short)
    state = short.state_dict()
    cfg = copy.deepcopy(cfg)
    for stack in stacks[:-1]:
        edit = _first(
            edits(model, cfg, stack),
            lambda c, s=stack: _fits(c, short, s))
        if edit is None:
            raise ExportError(_no_config(model, cfg, stack))
        cfg = edit
    reasons: List[str] = []

    def equal(candidate: dict) -> bool:
        built = _load(candidate, state)
        if built is None:
            return False
        gap = difference(model, built, inputs)
        if gap > tolerance:
            reasons.append(_why(short, built, gap, stacks))
        return gap <= tolerance

    if stacks:
        found = _first(edits(model, cfg, stacks[-1]), equal)
        if found is None:
            raise ExportError(
                _no_config(model, cfg, stacks[-1], reasons[:1]))
        cfg = found
    elif not equal(cfg):
        raise ExportError('The model that the config builds is not the one '
                          f'of the checkpoint. {" ".join(reasons)}')
    built = _load(cfg, state)
    assert built is not None
    return built, cfg, stacks


def take_out(model: nn.Module) -> List[Stack]:
    """Take the dropped blocks out of their containers, in place.

    Args:
        model (nn.Module): Model with :class:`DroppedBlock` in it.

    Returns:
        list[Stack]: One entry per container that has lost a block.

    Raises:
        ExportError: A dropped block is no entry of a list.
    """
    stacks = []
    for name, module in list(model.named_modules()):
        lost = any(isinstance(m, DroppedBlock) for m in module.children())
        if not lost:
            continue
        if not isinstance(module, CONTAINERS):
            block = next(n for n, m in module.named_children()
                         if isinstance(m, DroppedBlock))
            raise ExportError(
                f'The dropped block {name}.{block} is a module of its own, '
                f'no entry of a list, so no config can leave it out. {HELP}')
        stacks.append(Stack(name, module))
        left = [(n, m) for n, m in module._modules.items()
                if not isinstance(m, DroppedBlock)]
        module._modules.clear()
        for i, (key, child) in enumerate(left):
            module._modules[str(i) if key.isdigit() else key] = child
    return stacks


def _no_config(model: nn.Module, cfg: dict, stack: Stack,
               reasons: Optional[List[str]] = None) -> str:
    place = [n for n, _, _ in owners(model, cfg, stack.path)]
    owner = '.'.join(map(str, place[0])) or 'model'
    found = ' '.join(reasons or [
        f'No argument of {owner} gives {len(stack.kept)} instead of '
        f'{stack.total} blocks.'
    ])
    return (f'{stack.path} without the blocks {stack.dropped} cannot be '
            f'written as a config. {found} {HELP}')


def _first(candidates: Iterator[dict],
           accept: Callable[[dict], bool]) -> Optional[dict]:
    return next((c for c in candidates if accept(c)), None)


def _build(cfg: dict) -> Optional[nn.Module]:
    """Build a model; None where its constructor refuses the config."""
    try:
        built = MODELS.build(copy.deepcopy(cfg))
    except Exception:  # any class may refuse in its own way
        return None
    built.eval()  # mmaction2's ResNets return nothing here
    return built


def _load(cfg: dict, state: Dict[str, Tensor]) -> Optional[nn.Module]:
    """Build a model and load all weights; None where they do not fit."""
    built = _build(cfg)
    if built is None or _shapes(built.state_dict()) != _shapes(state):
        return None
    built.load_state_dict(state)
    return built


def _shapes(state: Dict[str, Tensor]) -> Dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def _fits(cfg: dict, short: nn.Module, stack: Stack) -> bool:
    """Whether a config builds one of the stacks as it is now."""
    built = _build(cfg)
    if built is None:
        return False
    try:
        own = built.get_submodule(stack.path).state_dict()
    except AttributeError:
        return False
    wanted = short.get_submodule(stack.path).state_dict()
    return _shapes(own) == _shapes(wanted)


# ------------------------------------------------------- edits of the config
def owners(model: nn.Module, cfg: dict,
           path: str) -> List[Tuple[Place, dict, nn.Module]]:
    """Configs of the modules around a stack, the nearest first.

    Args:
        model (nn.Module): The model.
        cfg (dict): Its config.
        path (str): Dotted path of the stack.

    Returns:
        list[tuple]: Place of the config in ``cfg``, the config, and the
        module that was built from it.
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
        model (nn.Module): The model before.
        cfg (dict): Its config.
        stack (Stack): What was dropped.

    Yields:
        dict: A config, the likelier first.
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
    mmaction2 and mmpretrain keep in a table of the class.

    Args:
        cfg (dict): Config of the module.
        module (nn.Module): What was built from it.

    Returns:
        dict: Name to value.
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
        if value is None:
            values[name] = getattr(module, name, None)
        elif isinstance(value, str):
            values[name] = _preset(module, value)
    return {k: v for k, v in values.items() if _is_plain(v)}


def _preset(module: nn.Module, name: str) -> Any:
    for kind in type(module).__mro__:
        for table in vars(kind).values():
            entry = table.get(name.lower()) if isinstance(table,
                                                          dict) else None
            if isinstance(entry, dict):
                return copy.deepcopy(entry)
    return name


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
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


# -------------------------------------------------------------- explanations
def _why(short: nn.Module, built: nn.Module, gap: float,
         stacks: List[Stack]) -> str:
    """Say what a block computes otherwise under its new number."""
    ours = dict(short.named_modules())
    parts = tuple(f'{s.path}.' for s in stacks)
    for name, module in built.named_modules():
        for key, value in vars(module).items():
            before = vars(ours.get(name, module)).get(key, value)
            if (name.startswith(parts) and not key.startswith('_')
                    and _is_plain(value) and 'drop' not in f'{name}.{key}'
                    and before != value):
                return (f'Under its new number {name} has {key}={value}, it '
                        f'was trained with {before} (outputs differ by '
                        f'{gap:.2g}).')
    return f'The outputs of the shorter model differ by {gap:.2g}.'
