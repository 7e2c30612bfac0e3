"""Find out in a forward pass which blocks may go."""
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import torch
from torch import nn

from .bypass import NoStandIn, Passes, choose_passes

Run = Callable[[], Any]


class Findings(NamedTuple):
    """What a probe found.

    Attributes:
        fixed: Blocks that have to stay, and why.
        passes: For the others, what takes the place of their output; see
            :data:`~mmblockdrop.compression.bypass.Passes`.
        order: The blocks in the order in which they ran.
        idle: Dotted paths of linear layers in the blocks that were not called,
            as where attention reads the weight itself.
    """
    fixed: Dict[int, str]
    passes: Dict[int, Passes]
    order: List[int]
    idle: List[str]


def probe_blocks(blocks: Dict[int, nn.Module], names: Sequence[str],
                 run: Run) -> Findings:
    """Run a model and look at what goes into its blocks and comes out.

    Args:
        blocks: Number to block.
        names: Dotted paths of all blocks, by number.
        run: Runs the model once, in evaluation mode.

    Returns:
        What was found.
    """
    calls: Dict[int, List[Any]] = {}
    called = set()

    def look(index: int) -> Callable:

        def hook(block: nn.Module, args: tuple, kwargs: dict, output: Any):
            found: Any
            try:
                found = choose_passes(args, kwargs, output)
            except NoStandIn as error:
                found = error
            calls.setdefault(index, []).append(found)

        return hook

    def note(layer: nn.Module, *_) -> None:
        called.add(id(layer))

    linears = {
        index: [(name, layer) for name, layer in block.named_modules()
                if isinstance(layer, nn.Linear)]
        for index, block in blocks.items()
    }
    with ExitStack() as stack, torch.no_grad():
        for index, block in blocks.items():
            handles = [
                block.register_forward_hook(look(index), with_kwargs=True),
                *(layer.register_forward_hook(note)
                  for _, layer in linears[index])
            ]
            for handle in handles:
                stack.callback(handle.remove)
        run()
    verdicts = {index: _verdict(calls.get(index, [])) for index in blocks}
    idle = [
        f'{names[index]}.{name}' for index in calls
        for name, layer in linears[index] if id(layer) not in called
    ]
    return Findings(
        {
            i: str(v)
            for i, v in verdicts.items() if isinstance(v, NoStandIn)
        }, {
            i: v
            for i, v in verdicts.items() if not isinstance(v, NoStandIn)
        }, [*calls], idle)


def _verdict(calls: Sequence[Any]) -> Any:
    """What the calls of one block agree on, or why it has to stay."""
    if not calls:
        return NoStandIn('does not run')
    for found in calls:
        if isinstance(found, NoStandIn):
            return found
    if any(found != calls[0] for found in calls):
        return NoStandIn('is called in several ways')
    return calls[0]
