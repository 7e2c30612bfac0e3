"""The shorter model that a config can build, with the blocks renumbered."""
import copy
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from mmblockdrop.compression import DroppedBlock
from mmblockdrop.registry import MODELS

import torch
from torch import Tensor, nn

from .edits import Stack, edits, is_plain_value, owners
from .inputs import difference

CONTAINERS = (nn.ModuleList, nn.Sequential)
HELP = ('ONNX needs no config: with --onnx that file is written all the '
        'same. Or load the checkpoint with mmblockdrop (apis.init_localizer), '
        'or compress again with train_cfg.protect naming the blocks that '
        'must stay.')


class ExportError(ValueError):
    """The shorter model cannot be written as a config; says what to do."""


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
        model: Compressed model, LoRA merged, on the CPU.
        cfg: Config of the model before compression, of plain types.
        inputs: What both models are run on.
        tolerance: Largest difference allowed.

    Returns:
        The shorter model with the weights, its config, and what was dropped
        where.

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
        if not gap <= tolerance:
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
        model: Model with :class:`DroppedBlock` in it.

    Returns:
        One entry per container that has lost a block.

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


def _why(short: nn.Module, built: nn.Module, gap: float,
         stacks: List[Stack]) -> str:
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
