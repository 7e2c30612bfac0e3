"""The shorter model that a config can build, with the blocks renumbered."""
import copy
import inspect
from typing import (Any, Callable, Dict, Iterator, List, Optional, Sequence,
                    Tuple)

from mmblockdrop.compression import DroppedBlock
from mmblockdrop.compression.blocks import CONTAINERS
from mmblockdrop.compression.spec import Stack, find_place
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.checkpoint import compare_states

from torch import Tensor, nn

from .runtime import ExportError, difference

#: Where a value stands in a config: keys of dicts and places in lists.
Keys = Tuple[Any, ...]
Edit = Dict[Keys, Any]
HELP = ('ONNX needs no config: with --onnx that file is written all the '
        'same. Or load the checkpoint with mmblockdrop (apis.init_localizer), '
        'or compress again with train_cfg.protect naming the blocks that '
        'must stay.')


class ShortStack:
    """Blocks of one container, some of them removed.

    Args:
        path: Dotted path of the container.
        container: The container itself.

    Attributes:
        total: Number of blocks of the uncompressed model.
        kept: Original numbers of those that remain.
        dropped: Original numbers of the others.
    """

    def __init__(self, path: str, container: nn.Module) -> None:
        self.path = path
        self.kept, self.dropped = [], []
        for i, block in enumerate(container.children()):
            gone = isinstance(block, DroppedBlock)
            (self.dropped if gone else self.kept).append(i)
        self.total = len(self.kept) + len(self.dropped)


def renumber(
        model: nn.Module,
        cfg: dict,
        inputs: Tensor,
        tolerance: float = 1e-5) -> Tuple[nn.Module, dict, List[ShortStack]]:
    """Build a model that has only the blocks that remain.

    Which arguments describe a stack, the class that owns it declares (see
    :class:`~mmblockdrop.compression.BlockSpec`). For a class that declares
    nothing it is found by trying: every number in its config, and in the
    defaults of its constructor, that equals the old length is set to the new
    one, and lists with one entry per block lose theirs. In either case the
    model is built, and must have the parameters, and on ``inputs`` the
    outputs, of the compressed model.

    Args:
        model: Compressed model, LoRA merged, on the CPU.
        cfg: Config of the model before compression, of plain types.
        inputs: What both models are run on.
        tolerance: Largest difference allowed.

    Returns:
        The shorter model with the weights, its config, and what was removed
        where.

    Raises:
        ExportError: No config builds the shorter model.
    """
    short = copy.deepcopy(model)
    short.eval()  # returns nothing for some classes of mmaction2
    stacks = take_out(short)
    state = short.state_dict()
    reasons: List[str] = []

    def equal(candidate: dict) -> bool:
        built = _load(candidate, state)
        if built is None:
            return False
        gap = difference(model, built, inputs)
        if not gap <= tolerance:
            reasons.append(_why(short, built, gap, stacks))
        return gap <= tolerance

    cfg = _without_halves(model, cfg, stacks)
    for stack in stacks:
        last = stack is stacks[-1]
        accept = equal if last else _holds(short, stack)
        found = next(filter(accept, edits(model, cfg, stack)), None)
        if found is None:
            raise ExportError(_no_config(model, cfg, stack, reasons[:1]))
        cfg = found
    if not stacks and not equal(cfg):
        raise ExportError('The model that the config builds is not the one '
                          f'of the checkpoint. {" ".join(reasons)}')
    built = _load(cfg, state)
    assert built is not None
    return built, cfg, stacks


# --------------------------------------------------------- what was removed
def removed_halves(model: nn.Module) -> Dict[str, str]:
    """List the halves that are removed from blocks that remain.

    Args:
        model: Compressed model.

    Returns:
        Dotted path of each half to that of its block.
    """
    found = {}
    for name, module in model.named_modules():
        block = name if isinstance(module, DroppedBlock) else ''
        while block:
            block = block.rpartition('.')[0]
            place = find_place(model, block) if block else None
            if place and name in [
                    f'{block}.{half.branch}' for half in place.spec.halves
            ]:
                found[name] = block
    return found


def take_out(model: nn.Module) -> List[ShortStack]:
    """Take the removed blocks out of their containers, in place.

    Args:
        model: Model with :class:`DroppedBlock` in it.

    Returns:
        One entry per container that has lost a block.

    Raises:
        ExportError: A removed block is not an entry of a list.
    """
    stacks = []
    halved = tuple(f'{block}.' for block in removed_halves(model).values())
    for name, module in list(model.named_modules()):
        lost = [
            key for key, child in module.named_children()
            if isinstance(child, DroppedBlock)
        ]
        if not lost or f'{name}.'.startswith(halved):
            continue
        if not isinstance(module, CONTAINERS):
            raise ExportError(
                f'The removed block {name}.{lost[0]} is a module of its own, '
                f'not an entry of a list: no config can leave it out. {HELP}')
        stacks.append(ShortStack(name, module))
        remain = [(k, m) for k, m in module._modules.items() if k not in lost]
        module._modules.clear()
        for i, (key, child) in enumerate(remain):
            module._modules[str(i) if key.isdigit() else key] = child
    return stacks


def _without_halves(model: nn.Module, cfg: dict,
                    stacks: Sequence[ShortStack]) -> dict:
    """The config with the removed halves among its arguments."""
    absent: Dict[Keys, List[str]] = {}
    arguments: Dict[Keys, str] = {}
    for half, block in removed_halves(model).items():
        place = find_place(model, block)
        assert place is not None
        keys, _, owner = owners(model, cfg, block)[0]
        if place.spec.absent is None or owner is not place.owner:
            raise ExportError(
                f'{type(place.owner).__name__} has no argument that leaves '
                f'out halves of blocks, here {half}. mmblockdrop.LoRAViT has '
                f'one, drop_blocks. {HELP}')
        container, _, number = block.rpartition('.')
        for stack in stacks:
            if stack.path == container:
                number = str(stack.kept.index(int(number)))
        name = f'{container}.{number}{half[len(block):]}'
        absent.setdefault(keys, []).append(
            name[len(f'{place.prefix}.' if place.prefix else ''):])
        arguments[keys] = place.spec.absent
    for keys, parts in absent.items():
        cfg = _edited(cfg, keys, {}, {(arguments[keys], ): parts})
    return cfg


# --------------------------------------------------------------- the config
def owners(model: nn.Module, cfg: dict,
           path: str) -> List[Tuple[Keys, dict, nn.Module]]:
    """Configs of the modules around a stack, the nearest first.

    Args:
        model: The model.
        cfg: Its config.
        path: Dotted path of the stack.

    Returns:
        Place of the config in ``cfg``, the config, and the module that was
        built from it.
    """
    found: List[Tuple[Keys, dict, nn.Module]] = [((), cfg, model)]
    keys: Keys = ()
    for part in path.split('.'):
        value = found[0][1].get(part)
        if not isinstance(value, dict) or 'type' not in value:
            break
        keys += (part, )
        module = model.get_submodule('.'.join(keys))
        found.insert(0, (keys, value, module))
    return found


def edits(model: nn.Module, cfg: dict, stack: ShortStack) -> Iterator[dict]:
    """Configs that may build the model with a stack shortened.

    Args:
        model: The model before.
        cfg: Its config.
        stack: What was removed.

    Yields:
        The config that follows from what the owner of the stack declares; if
        nobody declares the stack, several, the likelier first.
    """
    place = find_place(model, stack.path)
    for keys, node, module in owners(model, cfg, stack.path):
        if place is not None and module is not place.owner:
            continue
        values = arguments(node, module)
        found = _guessed(values, stack) if place is None else _declared(
            values, stack, place.stack)
        for edit in found:
            yield _edited(cfg, keys, values, edit)


def _declared(values: Dict[str, Any], stack: ShortStack,
              declared: Stack) -> Iterator[Edit]:
    """The edit that a class declares."""
    length = _keys(declared.depth or '')
    if not declared.depth or _get(values, length) != stack.total:
        return
    edit: Edit = {length: len(stack.kept)}
    for place in map(_keys, declared.per_block):
        edit.update(_shortened(place, _get(values, place), stack))
    for place in map(_keys, declared.numbers):
        edit.update(_renumbered(place, _get(values, place), stack))
    for place in map(_keys, declared.subsets):
        kept = [i for i in _get(values, place) or () if i in stack.kept]
        if _get(values, place) is not None:
            edit.update(_renumbered(place, kept, stack))
    yield edit


def _guessed(values: Dict[str, Any], stack: ShortStack) -> Iterator[Edit]:
    """Edits that suit a class that declares nothing."""
    places = list(_walk(values))
    lists: Edit = {}
    numbers: Edit = {}
    for place, value in places:
        lists.update(_shortened(place, value, stack))
        if place and str(place[-1]).endswith('indices'):
            numbers.update(_renumbered(place, value, stack))
    options = [{}, numbers, lists, {**numbers, **lists}]
    options += [{p: v} for p, v in lists.items()]
    likely = ('depth', 'layers', 'blocks', 'arch')
    lengths = [
        place for place, value in places
        if type(value) is int and value == stack.total
    ]
    lengths.sort(
        key=lambda p: (not any(w in str(p[0]) for w in likely), len(p)))
    for length in lengths:
        for more in options:
            if not any(length[:len(place)] == place for place in more):
                yield {**more, length: len(stack.kept)}


def _shortened(place: Keys, value: Any, stack: ShortStack) -> Edit:
    """A list with one entry per block, without those of removed blocks."""
    if isinstance(value, (list, tuple)) and len(value) == stack.total:
        return {place: type(value)(value[i] for i in stack.kept)}
    return {}


def _renumbered(place: Keys, value: Any, stack: ShortStack) -> Edit:
    """A list of block numbers, renumbered."""
    if isinstance(value, (list, tuple)) and set(value) <= set(stack.kept):
        return {place: type(value)(stack.kept.index(i) for i in value)}
    return {}


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


def _keys(place: str) -> Keys:
    """Keys of a dotted place; numbers are entries of lists."""
    return tuple(int(k) if k.isdigit() else k for k in place.split('.'))


def _get(values: Any, keys: Keys) -> Any:
    """Value at a place; None if there is none."""
    for key in keys:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _walk(values: Any, place: Keys = ()) -> Iterator[Tuple[Keys, Any]]:
    """All values inside nested dicts and lists, with their places."""
    yield place, values
    pairs: Any = ()
    if isinstance(values, dict):
        pairs = values.items()
    elif isinstance(values, (list, tuple)):
        pairs = enumerate(values)
    for key, value in pairs:
        yield from _walk(value, (*place, key))


def _edited(cfg: dict, keys: Keys, values: Dict[str, Any],
            edit: Edit) -> dict:
    """A copy of a config with some arguments of one of its modules set."""
    cfg = copy.deepcopy(cfg)
    node = cfg
    for key in keys:
        node = node[key]
    for name in {place[0] for place in edit}:
        value = copy.deepcopy(values.get(name))
        for place, new in edit.items():
            if place[0] == name:
                value = _put(value, place[1:], new)
        node[name] = value
    return cfg


def _put(value: Any, keys: Keys, new: Any) -> Any:
    if not keys:
        return new
    entries = list(value) if isinstance(value, tuple) else value
    entries[keys[0]] = _put(entries[keys[0]], keys[1:], new)
    return tuple(entries) if isinstance(value, tuple) else entries


# ---------------------------------------------------------------- the proof
def _build(cfg: dict) -> Optional[nn.Module]:
    """Build a model; None where its constructor rejects the config."""
    try:
        built = MODELS.build(copy.deepcopy(cfg))
    except Exception:  # each class rejects in its own way
        return None
    built.eval()
    return built


def _load(cfg: dict, state: Dict[str, Tensor]) -> Optional[nn.Module]:
    """Build a model and load all weights; None where they do not fit."""
    built = _build(cfg)
    if built is None or compare_states(built.state_dict(), state):
        return None
    built.load_state_dict(state)
    return built


def _holds(short: nn.Module, stack: ShortStack) -> Callable[[dict], bool]:
    """Whether a config builds one of the stacks as it is now."""
    wanted = short.get_submodule(stack.path).state_dict()

    def accept(cfg: dict) -> bool:
        built = _build(cfg)
        try:
            own = built.get_submodule(stack.path) if built else None
        except AttributeError:
            return False
        return own is not None and not compare_states(own.state_dict(),
                                                      wanted)

    return accept


def _no_config(model: nn.Module, cfg: dict, stack: ShortStack,
               reasons: Sequence[str]) -> str:
    place = owners(model, cfg, stack.path)[0][0]
    owner = '.'.join(map(str, place)) or 'model'
    found = ' '.join(reasons) or (
        f'No argument of {owner} gives {len(stack.kept)} instead of '
        f'{stack.total} blocks.')
    return (f'{stack.path} without the blocks {stack.dropped} cannot be '
            f'written as a config. {found} {HELP}')


def _why(short: nn.Module, built: nn.Module, gap: float,
         stacks: Sequence[ShortStack]) -> str:
    """Say what a block computes otherwise under its new number."""
    ours = dict(short.named_modules())
    parts = tuple(f'{s.path}.' for s in stacks)
    for name, module in built.named_modules():
        for key, value in vars(module).items():
            before = vars(ours.get(name, module)).get(key, value)
            if (name.startswith(parts) and not key.startswith('_')
                    and is_plain_value(value) and 'drop' not in f'{name}.{key}'
                    and before != value):
                return (f'Under its new number {name} has {key}={value}, it '
                        f'was trained with {before} (outputs differ by '
                        f'{gap:.2g}).')
    return f'The outputs of the shorter model differ by {gap:.2g}.'
