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
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Sequence, Tuple)

from mmblockdrop.registry import REPAIRS

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
Recorded = Dict[Tuple[str, str], Tensor]


class Writer(NamedTuple):
    """The layer of a block that writes into the residual stream.

    Attributes:
        name: Its dotted path in the model.
        layer: ``nn.Linear``, or a convolution of kernel 1.
        scale: What its output is multiplied by on its way into the stream,
            such as LayerScale, [C].
    """
    name: str
    layer: nn.Module
    scale: Tensor


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
        modes = student.training, teacher.training
        student.eval(), teacher.eval()
        try:
            with torch.no_grad():
                return [
                    self._fit(student, teacher, block, target, batches, run)
                    for block, target in repair_plan(structure, removed,
                                                     self.refit)
                ]
        finally:
            student.train(modes[0]), teacher.train(modes[1])

    def _fit(self, student: nn.Module, teacher: nn.Module, block: str,
             target: str, batches: Iterable[Any], run: Run) -> Dict[str, Any]:
        """Fit the writing layer of a block to the teacher's stream."""
        writer: Optional[Writer] = None
        for number, batch in enumerate(batches):
            if writer is None:
                writer = find_writer(student, block,
                                     partial(run, student, batch))
                if writer is None:
                    return dict(layer=block, why_not='no layer of it writes '
                                'linearly into the residual stream')
                sums = Sums(writer, block, target)
            sums.add(
                record(student, sums.wanted, partial(run, student, batch)),
                record(teacher, {target: 'output'},
                       partial(run, teacher, batch)), batch, number)
        if writer is None:
            return dict(layer=block, why_not='there are no batches')
        return sums.apply(self.ridges)

    def sums_of(self, student: nn.Module, teacher: nn.Module,
                structure: Structure, candidates: Sequence[Id],
                batches: Sequence[Any], run: Run) -> Dict[Id, 'Sums']:
        """Gather what it takes to repair each of several candidates.

        One pass of the teacher over a batch serves all candidates, and so does
        one of the student where the layer to fit stands before the block of
        the candidate.

        Args:
            student: The localizer; it is left as it is.
            teacher: The uncompressed localizer.
            structure: Structure of the student.
            candidates: Ids of parts, none of which is removed.
            batches: Calibration data.
            run: Runs a localizer on a batch.

        Returns:
            Candidate to sums; those that cannot be repaired are left out.
        """
        sums: Dict[Id, Sums] = {}
        alone = set()
        for candidate in candidates:
            with structure.without(candidate):
                (block, target), *_ = repair_plan(structure, [candidate],
                                                  False) or [('', '')]
                writer = block and find_writer(
                    student, block, partial(run, student, batches[0]))
            if writer:
                sums[candidate] = Sums(writer, block, target)
                order = list(
                    dict.fromkeys(map(structure.block_of, structure.order)))
                if order.index(block) >= order.index(
                        structure.block_of(candidate)):
                    alone.add(candidate)
        together = {
            path: what
            for candidate in sums.keys() - alone
            for path, what in sums[candidate].wanted.items()
        }
        targets = {s.target: 'output' for s in sums.values()}
        for number, batch in enumerate(batches):
            theirs = record(teacher, targets, partial(run, teacher, batch))
            ours = record(student, together, partial(run, student, batch))
            for candidate, found in sums.items():
                if candidate in alone:
                    with structure.without(candidate):
                        own = record(student, found.wanted,
                                     partial(run, student, batch))
                    found.add(own, theirs, batch, number)
                else:
                    found.add(ours, theirs, batch, number)
        return sums

    @contextmanager
    def tried(self, sums: Optional['Sums']) -> Iterator[None]:
        """Repair inside a ``with`` statement, then put the weights back.

        Args:
            sums: What :meth:`sums_of` gave; None changes nothing.
        """
        if sums is None:
            yield
            return
        layer = sums.writer.layer
        before = {n: p.clone() for n, p in layer.named_parameters()}
        sums.apply(self.ridges)
        try:
            yield
        finally:
            for name, value in before.items():
                layer.get_parameter(name).copy_(value)


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
    blocks = list(dict.fromkeys(map(structure.block_of, structure.order)))
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


def record(model: nn.Module, wanted: Dict[str, str],
           run: Callable[[], Any]) -> Recorded:
    """Record what modules are given or return while a model runs.

    Args:
        model: Any model.
        wanted: Dotted path of a module to 'input' or 'output'.
        run: Runs the model once.

    Returns:
        Path and what was asked for, to the tensor. Where a module runs
        several times, as on chunks of clips, its tensors are joined along the
        first dimension.
    """
    parts: Dict[Tuple[str, str], List[Tensor]] = {}
    with ExitStack() as stack:
        for path, what in wanted.items():

            def keep(_: nn.Module, args: Any, kwargs: Any, output: Any,
                     key: Tuple[str, str] = (path, what)) -> None:
                value = output if key[1] == 'output' else [
                    *args, *kwargs.values()
                ]
                parts.setdefault(key, []).append(block_tensor(value).detach())

            handle = model.get_submodule(path).register_forward_hook(
                keep, with_kwargs=True)
            stack.callback(handle.remove)
        run()
    return {
        key: found[0] if len(found) == 1 else torch.cat(found)
        for key, found in parts.items()
    }


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
            scale = _scale(module, layer, *calls[0])
            if scale is not None:
                return Writer(name, layer, scale)
    return None


def _is_linear(layer: nn.Module) -> bool:
    """Whether a layer multiplies every token by one matrix."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return (set(layer.kernel_size) == {1} and set(layer.stride) == {1}
                and layer.groups == 1)
    return isinstance(layer, nn.Linear)


def _scale(block: nn.Module, layer: nn.Module, args: tuple,
           kwargs: dict) -> Optional[Tensor]:
    """Factor by which a layer's output enters a block's output, [C]."""
    width = layer.weight.shape[0]
    noise = torch.randn(width, generator=torch.Generator().manual_seed(0))
    noise = noise.to(layer.weight)

    def output(added: Optional[Tensor]) -> Tensor:
        if added is None:
            return block_tensor(block(*args, **kwargs))
        axes = (1, ) * 0 if isinstance(layer, nn.Linear) else (1, ) * (
            len(layer.kernel_size))
        handle = layer.register_forward_hook(
            lambda _, __, out: out + added.reshape(-1, *axes))
        try:
            return block_tensor(block(*args, **kwargs))
        finally:
            handle.remove()

    plain = output(None)
    ones, drawn = (output(x) - plain for x in (torch.ones_like(noise), noise))
    axis = _channel_axis(plain, width, layer)
    if axis is None:
        return None
    ones, drawn = (x.movedim(axis, -1).reshape(-1, width)
                   for x in (ones, drawn))
    scale = ones.mean(0)
    size = plain.abs().max().clamp(min=1)
    same = (ones - scale).abs().max() <= TOLERANCE * size
    linear = (drawn - scale * noise).abs().max() <= TOLERANCE * size
    return scale if same and linear and (scale != 0).all() else None


def _channel_axis(stream: Tensor, width: int,
                  layer: nn.Module) -> Optional[int]:
    """Axis of the channels of a stream; the last, or that of convolutions."""
    axes = [-1, 1] if isinstance(layer, nn.Linear) else [1]
    return next((a for a in axes
                 if stream.dim() > 1 and stream.shape[a] == width), None)


def rows(values: Tensor, writer: Writer,
         like: Optional[Tensor] = None) -> Tensor:
    """Lay features out as tokens.

    Args:
        values: The stream, or what the writing layer was given.
        writer: The layer.
        like: Tokens of the stream, if ``values`` is what the layer was given.

    Returns:
        [tokens, C], float64.

    Raises:
        ValueError: The layer was given another number of tokens than the
            stream has.
    """
    layer = writer.layer
    if like is None:
        axis = _channel_axis(values, layer.weight.shape[0], layer)
        if axis is None:
            raise ValueError(f'{writer.name} writes {layer.weight.shape[0]} '
                             f'channels, the stream has the shape '
                             f'{list(values.shape)}')
    else:
        axis = -1 if isinstance(layer, nn.Linear) else 1
    tokens = values.movedim(axis, -1).flatten(0, -2).double()
    if like is not None and len(tokens) != len(like):
        raise ValueError(f'{writer.name} is given {len(tokens)} tokens, the '
                         f'stream has {len(like)}')
    return tokens


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
            size = samples[index].get('window_size', 1)
            share = samples[index].get('valid_steps', size) / size
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
        wanted: What :func:`record` must record of the student.
    """

    def __init__(self, writer: Writer, block: str, target: str) -> None:
        self.writer, self.block, self.target = writer, block, target
        self.wanted = {block: 'output', writer.name: 'input'}
        weight = writer.layer.weight
        self.has_bias = writer.layer.bias is not None
        outputs, inputs = weight.shape[0], weight.shape[1] + self.has_bias
        # Fitted and held out: products of h with h and with what is missing;
        # tokens, squares of what is missing, of the stream and their sums.
        self.square, self.cross, self.other = (
            weight.new_zeros((2, *shape), dtype=torch.float64)
            for shape in ((inputs, inputs), (inputs, outputs),
                          (3 + outputs, )))

    def add(self, student: Recorded, teacher: Recorded, batch: Any,
            number: int) -> None:
        """Add the tokens of a batch.

        Args:
            student: What was recorded of the student.
            teacher: What was recorded of the teacher.
            batch: The batch.
            number: Its number.
        """
        stream = rows(student[self.block, 'output'], self.writer)
        hidden = rows(student[self.writer.name, 'input'], self.writer, stream)
        wanted = rows(teacher[self.target, 'output'], self.writer)
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

    def apply(self, ridges: Sequence[float]) -> Dict[str, Any]:
        """Solve, and change the layer if that lowers the held-out error.

        Args:
            ridges: Strengths to choose from.

        Returns:
            Entry of the record, see :meth:`LinearRepair.__call__`.
        """
        for sums in (self.square, self.cross, self.other):
            all_reduce(sums)
        count, error, squares = self.other[1, :3].tolist()
        spread = squares - (self.other[1, 3:].square().sum() /
                            max(count, 1)).item()
        best, change, ridge = error, None, None
        for candidate in ridges:
            solution = self._solve(candidate)
            rest = error - 2 * (solution * self.cross[1]).sum() + (
                solution * (self.square[1] @ solution)).sum()
            found = max(rest.item(), 0.)
            if found < best:  # not so where it is NaN
                best, change, ridge = found, solution, candidate
        if change is not None:
            self._change(change)
        return dict(
            layer=self.writer.name,
            tokens=int(self.other[:, 0].sum()),
            ridge=ridge,
            error_before=error / max(spread, 1e-30),
            error_after=best / max(spread, 1e-30),
            kept=change is not None)

    def _solve(self, ridge: float) -> Tensor:
        """Change of the layer's output matrix, [d, C] or [d + 1, C]."""
        square = self.square[0].clone()
        width = len(square) - self.has_bias
        diagonal = square.diagonal()
        diagonal[:width] += ridge * diagonal[:width].mean().clamp(min=1e-30)
        if self.has_bias:
            diagonal[width:] += 1e-9 * diagonal[width:].clamp(min=1.)
        return torch.linalg.solve(square, self.cross[0])

    def _change(self, solution: Tensor) -> None:
        """Add a solution to the layer, its scale taken off."""
        layer = self.writer.layer
        solution = solution / self.writer.scale.double()
        width = len(solution) - self.has_bias
        weight = solution[:width].T.reshape(layer.weight.shape)
        layer.weight += weight.to(layer.weight)
        if self.has_bias:
            layer.bias += solution[width].to(layer.bias)
