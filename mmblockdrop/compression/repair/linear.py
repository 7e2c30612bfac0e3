"""What is fitted to what when a part of a model was removed."""
from contextlib import contextmanager
from functools import partial
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Sequence, Union)

from mmblockdrop.registry import REPAIRS
from mmblockdrop.utils.progress import with_progress

import torch
from torch import nn

from ..bypass import DroppedBlock
from ..lora import merge_lora
from ..record import Id
from ..structure import Structure
from .places import Place, Stream, Writers, recorded, stream_map_of, writers_of
from .ridge import Solution, Sums, held_out, with_places

Run = Callable[[nn.Module, Any], Any]
Entry = Dict[str, Any]
NO_WRITER = 'no layer of it writes linearly into the residual stream'
NO_ENTRY = ('nothing in front of it is known to make the stream linearly, '
            'so no map can be folded into it')


class Fit(NamedTuple):
    """One regression of a plan.

    Attributes:
        block: Dotted path of the block of the student: one that remains, whose
            layers are fitted, or the removed one that began a stack, in front
            of which an affine map of the stream is.
        target: That of the teacher's block whose output is the target.
        in_front: Whether it is the second kind.
    """
    block: str
    target: str
    in_front: bool = False


@REPAIRS.register_module()
class LinearRepair:
    """Let what remains of a model write what removed blocks no longer do.

    See :mod:`mmblockdrop.compression.repair` for the formula.

    Args:
        ridges: Strengths of the penalty to choose from, as shares of the mean
            squared entry of h. The one with the least held-out error is taken.
        refit: Whether the blocks behind the gap are fitted, too, each to the
            teacher's stream behind it.
        both_layers: Whether all layers of a block that write into the stream
            are fitted, as the projection of the attention and the last layer
            of the FFN, and not the last one alone. What the others change in
            the input of the last is unknown to the regression, so they are
            changed first, and the last is fitted to what then is missing.
            Takes two passes over the data for each block.
        max_memory_gb: Most that the sums of one fit with ``both_layers``, or
            of several candidates of a scorer at once, may take; where more is
            needed the last layer is fitted alone, and candidates are taken in
            groups, each with a pass over the data.

    A tenth of the tokens, in stretches, is held out: they choose the ridge,
    and no change is made that does not lower the error on them.

    Raises:
        ValueError: ``ridges`` holds a number that is not positive, or none; or
            ``max_memory_gb`` is not positive.
    """

    def __init__(self,
                 ridges: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
                 refit: bool = True,
                 both_layers: bool = False,
                 max_memory_gb: float = 2.) -> None:
        if not ridges or not all(r > 0 for r in ridges):
            raise ValueError(f'repair.ridges={ridges!r}: expected positive '
                             'numbers, such as [0.001]')
        if not max_memory_gb > 0:
            raise ValueError(f'repair.max_memory_gb={max_memory_gb!r}: '
                             'expected a positive number')
        self.ridges = tuple(ridges)
        self.refit, self.both_layers = refit, both_layers
        self.max_memory = max_memory_gb * 1e9

    def __call__(self, student: nn.Module, teacher: nn.Module,
                 structure: Structure, removed: Sequence[Id],
                 batches: Iterable[Any], run: Run) -> List[Entry]:
        """Repair a student in place; LoRA in it is merged first.

        With several processes each brings its share of the batches, and all
        end with the same weights.

        Args:
            student: The localizer that has lost blocks.
            teacher: The uncompressed localizer.
            structure: Structure of the student.
            removed: Ids of the parts that have just been removed.
            batches: Calibration data; walked through several times. Labels are
                not used.
            run: Runs a localizer on a batch.

        Returns:
            One entry per fitted layer, for the record: ``layer``, ``target``
            (the teacher's block), ``tokens``, ``ridge``, ``error_before`` and
            ``error_after`` (held out, shares of the variance of the teacher's
            stream) and ``kept``; ``with`` lists the layers that were changed
            along with it. Or ``layer`` and ``why_not``.
        """
        merge_lora(student)
        first = next(iter(batches), None)
        if first is None:
            return [dict(layer='', why_not='there are no batches')]
        entries = []
        with evaluating(student, teacher):
            for options in repair_plan(structure, removed, self.refit):
                tried = []
                for fit in options:
                    place = self._place(student, fit,
                                        partial(run, student, first),
                                        self.both_layers)
                    tried.append(
                        self._fit(student, teacher, fit, place, batches, run))
                    if 'why_not' not in tried[-1]:
                        break
                entries += tried
        return entries

    def _fit(self, student: nn.Module, teacher: nn.Module, fit: Fit,
             place: Optional[Place], batches: Iterable[Any],
             run: Run) -> Entry:
        """Do one regression of the plan and change the weights."""
        if place is None:
            return dict(
                layer=fit.block,
                why_not=NO_ENTRY if fit.in_front else NO_WRITER)
        if isinstance(place, Writers) and Sums.memory(
                place.columns, place.channels) > self.max_memory:
            place = place.last()
        sums = self._sums(student, teacher, fit, place, batches, run)
        if isinstance(sums, str):
            return dict(layer=fit.block, why_not=sums)
        last = place.last() if isinstance(place, Writers) else place
        found = sums.solve(self.ridges, only_last=True)
        others: List[str] = []
        if len(place.widths) > 1 and isinstance(place, Writers):
            together = sums.solve(self.ridges)
            del sums
            if together.change is not None and together.after < found.after:
                before = [t.clone() for t in place.tensors()]
                place.add(together.change)
                rest = self._sums(student, teacher, fit, last, batches, run)
                assert isinstance(rest, Sums)
                refined = rest.solve(self.ridges)
                if refined.after < found.after:
                    others = [w.name for w in place.writers[:-1]]
                    ridge = together.ridge
                    found = refined._replace(
                        before=found.before, ridge=refined.ridge or ridge)
                else:
                    place.restore(before)
        if found.change is not None:
            last.add(found.change)
        kept = found.change is not None or bool(others)
        entry = dict(
            layer=place.name,
            target=fit.target,
            tokens=found.tokens,
            ridge=found.ridge,
            error_before=found.before,
            error_after=found.after,
            kept=kept)
        if others:
            entry['with'] = others
        return entry

    def _place(self, student: nn.Module, fit: Fit, run: Callable[[], Any],
               several: bool) -> Optional[Place]:
        """Where a regression changes weights."""
        if fit.in_front:
            return stream_map_of(student, fit.block, run)
        return writers_of(student, fit.block, run, several)

    def _sums(self, student: nn.Module, teacher: nn.Module, fit: Fit,
              place: Place, batches: Iterable[Any],
              run: Run) -> Union[Sums, str]:
        """Walk through the batches; or say why there is nothing to fit."""
        sums = empty_sums(student, place)
        target = target_of(place, fit)
        shown = with_progress(batches) if hasattr(
            batches, '__len__') else batches
        for batch, places in with_places(_Shown(batches, shown)):
            with recorded(student, [place.stream], place.inputs) as ours:
                run(student, batch)
            with recorded(teacher, [target]) as theirs:
                run(teacher, batch)
            why = add_batch(sums, place, target, ours, theirs, batch, places)
            if why:
                return why
        return sums

    def changes(self, student: nn.Module, teacher: nn.Module,
                structure: Structure, candidates: Sequence[Id],
                batches: Iterable[Any], run: Run) -> Dict[Id, 'Change']:
        """Find the repair of each of several candidates.

        One pass of the teacher over a batch serves all candidates, and so does
        one of the student where the layer to fit stands before the block of
        the candidate. Only that layer is fitted. Where the sums of all take
        more than ``max_memory_gb``, there is a pass for each group of
        candidates.

        Args:
            student: The localizer, in evaluation mode; it is left as it is.
            teacher: The uncompressed localizer, likewise.
            structure: Structure of the student.
            candidates: Ids of parts, none of which is removed.
            batches: Calibration data; walked through once, or as often as
                there are groups.
            run: Runs a localizer on a batch.

        Returns:
            Candidate to change; those that cannot be repaired are left out.
        """
        with evaluating(student, teacher):
            work: Dict[Id, _Candidate] = {}
            first = next(iter(batches), None)
            if first is not None:
                work = self._candidates(student, structure, candidates,
                                        partial(run, student, first))
            found: Dict[Id, Change] = {}
            for group in self._groups(work):
                sums = _sums_of_group(student, teacher, structure, group,
                                      batches, run)
                for candidate in group:
                    if candidate in sums:
                        found[candidate] = Change(
                            group[candidate].place,
                            sums.pop(candidate).solve(self.ridges))
        return found

    def _candidates(self, student: nn.Module, structure: Structure,
                    candidates: Sequence[Id],
                    run: Callable[[], Any]) -> Dict[Id, '_Candidate']:
        """What to fit for each candidate that can be repaired."""
        work: Dict[Id, _Candidate] = {}
        order = blocks_of(structure)
        for candidate in candidates:
            with structure.without(candidate):
                plan = repair_plan(structure, [candidate], refit=False)
                for fit in plan[0] if plan else ():
                    place = self._place(student, fit, run, False)
                    if place is not None:
                        own = order.index(structure.block_of(candidate))
                        alone = (order.index(fit.block) >= own
                                 and not fit.in_front)
                        work[candidate] = _Candidate(fit, place, alone)
                        break
        return work

    def _groups(self, work: Dict[Id, '_Candidate']
                ) -> Iterator[Dict[Id, '_Candidate']]:
        """Candidates whose sums fit into memory together."""
        group: Dict[Id, _Candidate] = {}
        size = 0.
        for candidate, entry in work.items():
            place = entry.place
            own = Sums.memory(place.columns, place.channels)
            if group and size + own > self.max_memory:
                yield group
                group, size = {}, 0.
            group[candidate] = entry
            size += own
        if group:
            yield group


class _Candidate(NamedTuple):
    """What to fit for a candidate; whether the student must run without it."""
    fit: Fit
    place: Place
    alone: bool


class Change(NamedTuple):
    """A repair that can be tried.

    Attributes:
        place: What it changes.
        solution: How.
    """
    place: Place
    solution: Solution

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Repair inside a ``with`` statement, then put the weights back."""
        with self.place.put_back():
            if self.solution.change is not None:
                self.place.add(self.solution.change)
            yield


class _Shown:
    """Batches that are walked through with a progress bar."""

    def __init__(self, batches: Any, shown: Iterable[Any]) -> None:
        self.sampler = getattr(batches, 'sampler', None)
        self.dataset = getattr(batches, 'dataset', None)
        self.shown = shown

    def __iter__(self) -> Iterator[Any]:
        return iter(self.shown)


def _sums_of_group(student: nn.Module, teacher: nn.Module,
                   structure: Structure, group: Dict[Id, _Candidate],
                   batches: Iterable[Any], run: Run) -> Dict[Id, Sums]:
    """Sums for each candidate of a group, in one pass over the batches."""
    sums = {i: empty_sums(student, c.place) for i, c in group.items()}
    targets = {i: target_of(c.place, c.fit) for i, c in group.items()}
    for batch, places in with_places(batches):
        with recorded(teacher, targets.values()) as theirs:
            run(teacher, batch)
        together = [c.place for c in group.values() if not c.alone]
        with recorded(student, [p.stream for p in together],
                      [path for p in together for path in p.inputs]) as ours:
            run(student, batch)
        for candidate in list(sums):
            _, place, alone = group[candidate]
            own = ours
            if alone:
                with structure.without(candidate), recorded(
                        student, [place.stream], place.inputs) as own:
                    run(student, batch)
            if add_batch(sums[candidate], place, targets[candidate], own,
                         theirs, batch, places):
                del sums[candidate]
    return sums


def empty_sums(model: nn.Module, place: Place) -> Sums:
    """Sums for a place of a model, on its device."""
    return Sums(place.widths, place.has_bias, place.channels,
                next(model.parameters()).device)


def target_of(place: Place, fit: Fit) -> Stream:
    """The teacher's stream that a place is fitted to."""
    return place.stream._replace(block=fit.target)


def add_batch(sums: Sums, place: Place, target: Stream, ours: Dict[str, Any],
              theirs: Dict[str, Any], batch: Any,
              places: Sequence[int]) -> Optional[str]:
    """Add the tokens of a batch.

    Args:
        sums: What is added to.
        place: What is fitted.
        target: The teacher's stream.
        ours: What was recorded of the student.
        theirs: What was recorded of the teacher.
        batch: The batch.
        places: Places of its samples.

    Returns:
        Why it is not possible, in a few words; None if it is.
    """
    if place.stream.key not in ours or target.key not in theirs:
        return f'{target.block} has no stream like that of its own'
    stream, wanted = place.stream.tokens(ours), target.tokens(theirs)
    hidden = place.hidden(ours)
    if stream.shape != wanted.shape or len(hidden) != len(stream):
        return (f'its stream is {list(stream.shape)}, that of the teacher at '
                f'{target.block} {list(wanted.shape)}')
    if place.stream.rectified:  # all that is not positive becomes zero
        wanted = torch.where(wanted > 0, wanted, stream.clamp(max=0))
    sums.add(hidden, stream, wanted, held_out(len(stream), batch, places))
    return None


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Run models without dropout, gradients and mixed precision.

    Args:
        models: Put into evaluation mode; each of their modules is back in its
            own mode at the end.
    """
    modes = [(m, m.training) for model in models for m in model.modules()]
    device = next(models[0].parameters()).device.type
    for model in models:
        model.eval()
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def blocks_of(structure: Structure) -> List[str]:
    """Dotted paths of the blocks that hold the parts, in running order."""
    return list(dict.fromkeys(map(structure.block_of, structure.order)))


def repair_plan(structure: Structure, removed: Sequence[Id],
                refit: bool) -> List[List[Fit]]:
    """Say what is fitted to which of the teacher's blocks, in running order.

    Gaps are those of a container, as a stage: behind it the stream may have
    another shape. Nothing of a gap was repaired for good: when it grows, it is
    fitted again from the weights as they are, to the teacher behind the whole
    of it.

    Args:
        structure: Structure of the student.
        removed: Ids of the parts that have just been removed.
        refit: Whether blocks behind the gap are fitted, too.

    Returns:
        For every regression the ways to do it, the first that works counts.
        For a gap they are: the last block in front of it; what makes the
        stream in front of the stack, where none is; the last block of the
        stack before; and, without ``refit``, the first block behind it.
    """
    blocks = blocks_of(structure)
    there = [
        i for i, name in enumerate(blocks)
        if not isinstance(structure.model.get_submodule(name), DroppedBlock)
    ]
    gone = sorted({blocks.index(structure.block_of(p)) for p in removed})

    def stack(i: int) -> str:
        return blocks[i].rpartition('.')[0]

    def end(i: int) -> str:
        """The last block of the gap behind a block, or itself."""
        while i + 1 < len(blocks) and i + 1 not in there and stack(
                i + 1) == stack(i):
            i += 1
        return blocks[i]

    def options(i: int) -> List[Fit]:
        front = [j for j in there if j <= i][-1:]
        if front and stack(front[0]) == stack(i):
            return [Fit(blocks[front[0]], end(front[0]))]
        begin = next(j for j in range(len(blocks)) if stack(j) == stack(i))
        return [
            Fit(blocks[begin], end(begin), in_front=True),
            *(Fit(blocks[j], end(i)) for j in front)
        ]

    plan: Dict[str, List[Fit]] = {}
    for i in gone:
        found = options(i)
        behind = [Fit(blocks[j], end(j)) for j in there if j > i]
        plan.setdefault(found[0].block,
                        found if refit else found + behind[:1])
        for fit in behind if refit else ():
            plan.setdefault(fit.block, [fit])
    return [plan[block] for block in sorted(plan, key=blocks.index)]
