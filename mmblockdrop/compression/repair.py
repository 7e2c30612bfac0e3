"""Repair of removed blocks in closed form, without labels and training.

A residual block adds to a stream: ``x_i = x_{i-1} + f_i(x_{i-1})``. When the
blocks behind block p are gone, the layer of block p that writes into the
stream can write what is missing. It is linear in its input h, so the best
change of its weight and bias is a ridge regression,

    minimise over W, b:  mean over tokens |x + W h + b - y|^2 + ridge |W|^2

with x and h of the student as it is, and y the stream of the uncompressed
teacher behind the gap. No parameter is added, so repair costs nothing when
the model is used. Related: ReplaceMe (arXiv 2505.02819) for language models.
"""
from contextlib import contextmanager
from functools import partial
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Sequence, Set, Tuple)

from mmblockdrop.registry import REPAIRS
from mmblockdrop.structures.time_grid import valid_share
from mmblockdrop.utils.recorder import INPUT, record

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from .bypass import DroppedBlock, block_tensor
from .lora import merge_lora
from .record import Id
from .spec import find_writers
from .structure import Structure

#: A writing layer adds to the stream up to this share of what it is given.
TOLERANCE = 1e-3
#: One of so many stretches of every window is held out.
STRETCHES = 10

Run = Callable[[nn.Module, Any], Any]


class Writer(NamedTuple):
    """The layer of a block that writes into the residual stream.

    Attributes:
        name: Its dotted path in the model.
        layer: ``nn.Linear``, or a convolution of kernel 1.
        scale: What its output is multiplied by on its way into the stream,
            such as LayerScale, [C].
        axis: Axis of the channels in the stream.
    """
    name: str
    layer: nn.Module
    scale: Tensor
    axis: int


@REPAIRS.register_module()
class LinearRepair:
    """Let the blocks that remain write what removed ones no longer do.

    Args:
        ridges: Strengths of the penalty to choose from, as shares of the mean
            squared entry of h. The one with the least held-out error is taken.
        refit: Whether the blocks behind the gap are fitted, too, each to the
            teacher's stream behind it. Each change is kept only if it lowers
            the held-out error.

    A tenth of the tokens, in stretches, is held out: they choose the ridge,
    and no change is made that does not lower the error on them.

    Raises:
        ValueError: ``ridges`` holds a number that is not positive, or none.
    """

    def __init__(self,
                 ridges: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
                 refit: bool = True) -> None:
        if not ridges or not all(r > 0 for r in ridges):
            raise ValueError(f'repair.ridges={ridges!r}: expected positive '
                             'numbers, such as [0.001]')
        self.ridges = tuple(ridges)
        self.refit = refit

    def __call__(self, student: nn.Module, teacher: nn.Module,
                 structure: Structure, removed: Sequence[Id],
                 batches: Iterable[Any], run: Run) -> List[Dict[str, Any]]:
        """Repair a student in place; LoRA in it is merged first.

        Args:
            student: The localizer that has lost blocks.
            teacher: The uncompressed localizer.
            structure: Structure of the student.
            removed: Ids of the parts that have just been removed.
            batches: Calibration data; walked through several times. Labels are
                not used.
            run: Runs a localizer on a batch.

        Returns:
            One entry per fitted layer, for the record: ``layer``, ``tokens``,
            ``ridge``, ``error_before`` and ``error_after`` (held out, shares
            of the variance of the teacher's stream) and ``kept``; or
            ``layer`` and ``why_not``.
        """
        merge_lora(student)
        was_training = student.training
        student.eval()
        teacher.eval()
        try:
            with torch.no_grad():
                return [
                    self._fit(student, teacher, block, target, batches, run)
                    for block, target in repair_plan(structure, removed,
                                                     self.refit)
                ]
        finally:
            student.train(was_training)

    def _fit(self, student: nn.Module, teacher: nn.Module, block: str,
             target: str, batches: Iterable[Any], run: Run) -> Dict[str, Any]:
        """Fit the writing layer of a block to the teacher's stream."""
        sums: Optional[Sums] = None
        for number, batch in enumerate(batches):
            if sums is None:
                writer = find_writer(student, block,
                                     partial(run, student, batch))
                if writer is None:
                    return dict(layer=block, why_not='no layer of it writes '
                                'linearly into the residual stream')
                sums = Sums(writer, block, target)
            with record(student, sums.wanted) as ours:
                run(student, batch)
            with record(teacher, [target]) as theirs:
                run(teacher, batch)
            sums.add(ours, theirs, batch, number)
        if sums is None:
            return dict(layer=block, why_not='there are no batches')
        change, entry = sums.solve(self.ridges)
        sums.apply(change)
        return entry

    def changes(self, student: nn.Module, teacher: nn.Module,
                structure: Structure, candidates: Sequence[Id],
                batches: Iterable[Any], run: Run) -> Dict[Id, 'Change']:
        """Find the repair of each of several candidates.

        One pass of the teacher over a batch serves all candidates, and so does
        one of the student where the layer to fit stands before the block of
        the candidate. Only that layer is fitted.

        Args:
            student: The localizer, in evaluation mode; it is left as it is.
            teacher: The uncompressed localizer, likewise.
            structure: Structure of the student.
            candidates: Ids of parts, none of which is removed.
            batches: Calibration data; walked through once.
            run: Runs a localizer on a batch.

        Returns:
            Candidate to change; those that cannot be repaired are left out.
        """
        sums: Dict[Id, Sums] = {}
        alone: Set[Id] = set()
        for number, batch in enumerate(batches):
            if not number:
                sums, alone = _sums_of_candidates(student, structure,
                                                  candidates,
                                                  partial(run, student, batch))
            with record(teacher, {s.target for s in sums.values()}) as theirs:
                run(teacher, batch)
            together = {
                path
                for candidate in sums.keys() - alone
                for path in sums[candidate].wanted
            }
            with record(student, together) as ours:
                run(student, batch)
            for candidate, found in sums.items():
                if candidate in alone:
                    with structure.without(candidate), record(
                            student, found.wanted) as own:
                        run(student, batch)
                    found.add(own, theirs, batch, number)
                else:
                    found.add(ours, theirs, batch, number)
        return {
            candidate: Change(found, found.solve(self.ridges)[0])
            for candidate, found in sums.items()
        }


def _sums_of_candidates(
        student: nn.Module, structure: Structure, candidates: Sequence[Id],
        run: Callable[[], Any]) -> Tuple[Dict[Id, 'Sums'], Set[Id]]:
    """Empty sums, and the candidates without which the student must run."""
    sums: Dict[Id, Sums] = {}
    alone = set()
    order = blocks_of(structure)
    for candidate in candidates:
        with structure.without(candidate):
            plan = repair_plan(structure, [candidate], refit=False)
            writer = find_writer(student, plan[0][0], run) if plan else None
        if writer is not None:
            sums[candidate] = Sums(writer, *plan[0])
            own = structure.block_of(candidate)
            if order.index(plan[0][0]) >= order.index(own):
                alone.add(candidate)
    return sums, alone


def blocks_of(structure: Structure) -> List[str]:
    """Dotted paths of the blocks that hold the parts, in running order."""
    return list(dict.fromkeys(map(structure.block_of, structure.order)))


def repair_plan(structure: Structure, removed: Sequence[Id],
                refit: bool) -> List[Tuple[str, str]]:
    """Say which blocks are fitted to which of the teacher's.

    Args:
        structure: Structure of the student.
        removed: Ids of the parts that have just been removed.
        refit: Whether blocks behind the gap are fitted, too.

    Returns:
        Dotted path of each block to fit, in the order in which they run, and
        that of the teacher's block whose output it is fitted to: the last of
        the gap behind it, or itself where there is none.
    """
    blocks = blocks_of(structure)
    there = [
        i for i, name in enumerate(blocks)
        if not isinstance(structure.model.get_submodule(name), DroppedBlock)
    ]
    first = min(blocks.index(structure.block_of(part)) for part in removed)
    front = [i for i in there if i <= first][-1:]
    behind = [i for i in there if i > first]
    chosen = front + behind if refit else front or behind[:1]
    ends = dict(zip(there, [*there[1:], len(blocks)]))
    return [(blocks[i], blocks[ends[i] - 1]) for i in chosen]


def find_writer(model: nn.Module, block: str,
                run: Callable[[], Any]) -> Optional[Writer]:
    """Find the last layer of a block that writes into its residual stream.

    Declared layers are tried first (:class:`~.spec.BlockSpec`), then all
    linear layers of the block, the last one first. A layer writes if adding a
    number to a channel of its output adds the same, times a factor, to that
    channel of the block's output at every token; the factor is its scale.

    Args:
        model: The model, in evaluation mode.
        block: Dotted path of the block.
        run: Runs the model once.

    Returns:
        The layer; None if there is none.
    """
    module = model.get_submodule(block)
    calls: List[Tuple[tuple, dict]] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)),
        with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    declared = list(find_writers(model, block))[::-1]
    others = [
        f'{block}.{name}' for name, m in module.named_modules()
        if name and _is_linear(m)
    ][::-1]
    for name in dict.fromkeys([*declared, *others]):
        try:
            layer = model.get_submodule(name)
        except AttributeError:  # it left with its half of the block
            continue
        if _is_linear(layer) and calls:
            found = _scale(module, layer, *calls[0])
            if found is not None:
                return Writer(name, layer, *found)
    return None


def _is_linear(layer: nn.Module) -> bool:
    """Whether a layer multiplies every token by one matrix."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return (set(layer.kernel_size) == {1} and set(layer.stride) == {1}
                and layer.groups == 1)
    return isinstance(layer, nn.Linear)


def _scale(block: nn.Module, layer: nn.Module, args: tuple,
           kwargs: dict) -> Optional[Tuple[Tensor, int]]:
    """Factor [C] of a layer's output in a block's output, and their axis."""
    width = layer.weight.shape[0]
    noise = torch.randn(width, generator=torch.Generator().manual_seed(0))
    noise = noise.to(layer.weight)

    def output(added: Tensor) -> Tensor:
        shape = (-1, *[1] * (layer.weight.dim() - 2))
        handle = layer.register_forward_hook(
            lambda _, __, out: out + added.reshape(shape))
        try:
            return block_tensor(block(*args, **kwargs))
        finally:
            handle.remove()

    plain = output(torch.zeros_like(noise))
    size = plain.abs().max().clamp(min=1)
    changes = [output(x) - plain for x in (torch.ones_like(noise), noise)]
    for axis in (-1, 1):
        if plain.dim() < 2 or plain.shape[axis] != width:
            continue
        ones, drawn = (x.movedim(axis, -1).reshape(-1, width) for x in changes)
        scale = ones.mean(0)
        gap = max((ones - scale).abs().max(),
                  (drawn - scale * noise).abs().max())
        if gap <= TOLERANCE * size and (scale != 0).all():
            return scale, axis
    return None


def tokens_of(values: Any, axis: int) -> Tensor:
    """Lay features out as tokens.

    Args:
        values: What a module was given or returned.
        axis: Axis of the channels.

    Returns:
        [tokens, C], float64.
    """
    return block_tensor(values).detach().movedim(axis, -1).flatten(
        0, -2).double()


def held_out(tokens: int, batch: Any,
             number: int) -> Tuple[Tensor, Tensor]:
    """Say which tokens show real video, and which of them are held out.

    Tokens of a window stand together and follow time, as those of clips do.

    Args:
        tokens: Tokens of a batch of windows.
        batch: The batch; padding is known by ``valid_steps`` of its samples.
        number: Number of the batch, so that the stretches move.

    Returns:
        Two masks, bool [tokens]: real, and real and held out.
    """
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    windows = len(samples) if samples and not tokens % len(samples) else 1
    place = torch.arange(tokens // windows) / (tokens // windows)
    real, held = [], []
    for index in range(windows):
        share = 1.
        if samples and windows == len(samples):
            share = valid_share(samples[index])
        stretch = (place * STRETCHES).long()
        real.append(place < share)
        held.append(real[-1]
                    & ((stretch + number + index) % STRETCHES == 0))
    return torch.cat(real), torch.cat(held)


class Sums:
    """What a ridge regression needs, added up over batches and processes.

    Args:
        writer: The layer that is fitted.
        block: Dotted path of its block in the student.
        target: That of the teacher's block whose output it is fitted to.

    Attributes:
        wanted: What must be recorded of the student.
    """

    def __init__(self, writer: Writer, block: str, target: str) -> None:
        self.writer, self.block, self.target = writer, block, target
        self.wanted = [block, f'{writer.name}{INPUT}']
        weight = writer.layer.weight
        self.has_bias = writer.layer.bias is not None
        outputs, inputs = weight.shape[0], weight.shape[1] + self.has_bias
        # Fitted and held out: products of h with h and with what is missing;
        # tokens, squares of what is missing, of the stream and their sums.
        self.square, self.cross, self.other = (
            weight.new_zeros((2, *shape), dtype=torch.float64)
            for shape in ((inputs, inputs), (inputs, outputs),
                          (3 + outputs, )))

    def add(self, student: Dict[str, Any], teacher: Dict[str, Any],
            batch: Any, number: int) -> None:
        """Add the tokens of a batch.

        Args:
            student: What was recorded of the student.
            teacher: What was recorded of the teacher.
            batch: The batch.
            number: Its number.

        Raises:
            ValueError: The layer is given another number of tokens than the
                stream has.
        """
        writer = self.writer
        stream = tokens_of(student[self.block], writer.axis)
        wanted = tokens_of(teacher[self.target], writer.axis)
        hidden = tokens_of(student[self.wanted[1]], -1 if isinstance(
            writer.layer, nn.Linear) else 1)
        if len(hidden) != len(stream):
            raise ValueError(f'{writer.name} is given {len(hidden)} tokens, '
                             f'the stream has {len(stream)}')
        missing = wanted - stream
        if self.has_bias:
            hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], 1)
        real, held = held_out(len(stream), batch, number)
        for part, mask in enumerate((real & ~held, held)):
            mask = mask.to(hidden.device)
            h, e, y = hidden[mask], missing[mask], wanted[mask]
            self.square[part] += h.T @ h
            self.cross[part] += h.T @ e
            self.other[part] += torch.cat([
                torch.stack([
                    e.new_tensor(len(e)),
                    e.square().sum(),
                    y.square().sum()
                ]),
                y.sum(0)
            ])

    def solve(
            self, ridges: Sequence[float]
    ) -> Tuple[Optional[Tensor], Dict[str, Any]]:
        """Find the change of the layer that lowers the held-out error most.

        Args:
            ridges: Strengths to choose from.

        Returns:
            The change of its output matrix, [d, C], or [d + 1, C] with bias;
            None if none lowers the error. And the entry of the record, see
            :meth:`LinearRepair.__call__`.
        """
        for sums in (self.square, self.cross, self.other):
            all_reduce(sums)
        count, error, squares = self.other[1, :3].tolist()
        spread = squares - (self.other[1, 3:].square().sum() /
                            max(count, 1)).item()
        best, change, ridge = error, None, None
        for candidate in ridges:
            solution = self._solution(candidate)
            rest = error - 2 * (solution * self.cross[1]).sum() + (
                solution * (self.square[1] @ solution)).sum()
            found = max(rest.item(), 0.)
            if found < best:  # not so where it is NaN
                best, change, ridge = found, solution, candidate
        return change, dict(
            layer=self.writer.name,
            tokens=int(self.other[:, 0].sum()),
            ridge=ridge,
            error_before=error / max(spread, 1e-30),
            error_after=best / max(spread, 1e-30),
            kept=change is not None)

    def _solution(self, ridge: float) -> Tensor:
        """Ridge regression on the tokens that are not held out."""
        square = self.square[0].clone()
        width = len(square) - self.has_bias
        diagonal = square.diagonal()
        diagonal[:width] += ridge * diagonal[:width].mean().clamp(min=1e-30)
        if self.has_bias:
            diagonal[width:] += 1e-9 * diagonal[width:].clamp(min=1.)
        return torch.linalg.solve(square, self.cross[0])

    def apply(self, change: Optional[Tensor]) -> None:
        """Change the layer.

        Args:
            change: What :meth:`solve` gave.
        """
        if change is None:
            return
        layer = self.writer.layer
        change = change / self.writer.scale.double()
        width = len(change) - self.has_bias
        weight = change[:width].T.reshape(layer.weight.shape)
        layer.weight += weight.to(layer.weight)
        if self.has_bias:
            layer.bias += change[width].to(layer.bias)


class Change(NamedTuple):
    """A repair that can be tried.

    Attributes:
        sums: What it was found from.
        change: See :meth:`Sums.solve`.
    """
    sums: Sums
    change: Optional[Tensor]

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Repair inside a ``with`` statement, then put the weights back."""
        parameters = list(self.sums.writer.layer.parameters())
        before = [p.clone() for p in parameters]
        self.sums.apply(self.change)
        try:
            yield
        finally:
            for parameter, value in zip(parameters, before):
                parameter.copy_(value)
