"""Halves of blocks: the attention or the MLP alone.

A residual block adds two branches to what it is given, one after the other
(Vaswani et al., 2017). Each of them can be removed: it then adds nothing, and
the norm in front of it leaves with it. Which branches a block has, its class
declares; see :class:`~.spec.Half`.
"""
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from mmblockdrop.registry import STRUCTURES

import torch
from torch import Tensor, nn

from .blocks import BlockStack, block_names, listed, named
from .bypass import DroppedBlock, block_tensor
from .record import Id
from .spec import Half, find_place
from .structure import StackPath, Structure, Undo


class EmptyBranch(DroppedBlock):
    """Stands where a residual branch was; adds nothing."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return zeros like the first tensor that the branch is given."""
        return torch.zeros_like(block_tensor([*args, *kwargs.values()]))


class _Branch(NamedTuple):
    """One part: the branch ``half`` of the block with a number and a path."""
    number: int
    block: str
    half: Half


@STRUCTURES.register_module()
class HalfBlocks(Structure):
    """Residual branches of blocks, by their dotted path.

    The ids are paths in the model, such as ``backbone.blocks.3.attn``. When
    all branches of a block are removed, so is the block.

    Args:
        model: The localizer, or any other model.
        path: See :class:`~.blocks.BlockStack`.
        probed: See :class:`~.structure.Structure`.

    Raises:
        ValueError: ``path`` names nothing, or blocks whose class declares no
            halves.
    """

    unit, units = 'half', 'halves'

    def __init__(self,
                 model: nn.Module,
                 path: StackPath,
                 probed: Optional[Dict[str, Any]] = None) -> None:
        self.branches: Dict[Id, _Branch] = {}
        super().__init__(model, path, probed)
        self.blocks = BlockStack(model, self.path, {})

    def _find_parts(self) -> Dict[Id, str]:
        self.path = named(self.model, self.path)
        names = block_names(self.model, listed(self.path))
        for number, block in enumerate(names):
            place = find_place(self.model, block)
            if place is None or not place.spec.halves:
                kind = type(self.model.get_submodule(block)).__name__
                raise ValueError(
                    f'structure=HalfBlocks: stack={self.path!r} has blocks of '
                    f'type {kind}, whose model declares no halves in a '
                    'block_spec; expected a transformer such as '
                    'mmblockdrop.LoRAViT, or structure=BlockStack')
            for half in place.spec.halves:
                self.branches[f'{block}.{half.branch}'] = _Branch(
                    number, block, half)
        return {part: str(part) for part in self.branches}

    @property
    def remaining(self) -> List[Id]:
        """Paths of the branches that have not been removed."""
        return [part for part in self.ids if self._is_there(part)]

    def _is_there(self, part: Id) -> bool:
        _, block, half = self.branches[part]
        module = self.model.get_submodule(block)
        return not isinstance(module, DroppedBlock) and not isinstance(
            module.get_submodule(half.branch), DroppedBlock)

    def block_of(self, part: Id) -> str:
        """See :meth:`Structure.block_of`."""
        return self.branches[part].block

    def stand_in(self, part: Id) -> nn.Module:
        """See :meth:`Structure.stand_in`."""
        identity = self.branches[part].half.identity
        return EmptyBranch() if identity is None else DroppedBlock(identity)

    def _take_out(self, part: Id) -> Undo:
        number, block, half = self.branches[part]
        if not any(self.branches[other].block == block and other != part
                   for other in self.remaining):
            return self.blocks._take_out(number)
        owner = self.model.get_submodule(block)
        branch = self._put(self.names[part], self.stand_in(part))
        norms = {
            f'{block}.{leaf}': self._put(f'{block}.{leaf}', DroppedBlock())
            for leaf in half.leaves if leaf in dict(owner.named_modules())
        }
        parameters = dict(owner._parameters)
        scales = [leaf for leaf in half.leaves if leaf in parameters]
        for scale in scales:
            del owner._parameters[scale]
            setattr(owner, scale, 1.)
        self._changed(block)

        def undo() -> None:
            for name, module in {self.names[part]: branch, **norms}.items():
                self._put(name, module)
            for scale in scales:
                delattr(owner, scale)
            owner._parameters.clear()  # keeps their order
            owner._parameters.update(parameters)
            self._changed(block)

        return undo

    def record(self) -> Dict[str, Any]:
        """See :meth:`Structure.record`; ``ids`` lists the branches."""
        return dict(super().record(), ids=self.ids)


def remove_parts(model: nn.Module, path: StackPath,
                 parts: Iterable[Id]) -> None:
    """Remove blocks and halves of blocks.

    Args:
        model: Any model.
        path: Path of the stack.
        parts: Numbers for blocks, and dotted paths for halves.

    Raises:
        ValueError: There is no such part, or it is named twice.
    """
    for part in parts:
        kind = BlockStack if isinstance(part, int) else HalfBlocks
        kind(model, path).remove(part)
