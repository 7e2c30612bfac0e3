"""What the rounds of a run cut: the parts of a model that can be removed."""
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import (Any, Callable, Dict, Iterator, List, Optional, Sequence,
                    Union)

import torch
from torch import nn

from .bypass import Bypass, probe_modules
from .record import Id, read_id, removed_ids
from .spec import find_place

Path = Union[str, nn.Module]
StackPath = Union[Path, Sequence[Path]]
Undo = Callable[[], Any]


class Structure(ABC):
    """The parts of a model that can be removed, one by one.

    A part has an id that it keeps for ever: an int or a str, plain data for
    the record, which nobody but the structure interprets. A removed part is
    replaced in place by a module without parameters, so no other parameter
    changes its name.

    A subclass says what the parts are (:meth:`_find_parts`), which are there
    (:attr:`remaining`) and what takes their place (:meth:`stand_in`,
    :meth:`_take_out`).

    Args:
        model: The localizer, or any other model.
        path: Dotted path of the stack of blocks, or several; or the modules
            themselves.
        probed: :attr:`probed` of the same model, from a record. Defaults to
            None: nothing is known, and every part may be removed.

    Attributes:
        path: The path or paths.
        names: Id to the dotted path of the part's module, in the order of the
            model.
        fixed: Parts that have to stay, and why.
        order: Ids in the order in which the parts run.
        idle: Linear layers in the parts whose weights are read without calling
            them; known after :meth:`probe`.
    """

    #: What one part and several are called in messages.
    unit, units = 'part', 'parts'

    def __init__(self,
                 model: nn.Module,
                 path: StackPath,
                 probed: Optional[Dict[str, Any]] = None) -> None:
        self.model = model
        self.path: Any = path
        self.names = self._find_parts()
        probed = probed or {}
        self.fixed: Dict[Id, str] = {
            read_id(i, self.ids): why
            for i, why in probed.get('fixed', {}).items()
        }
        self.order: List[Id] = probed.get('order', self.ids)
        self.idle: List[str] = []

    def __len__(self) -> int:
        """Number of parts of the uncompressed model."""
        return len(self.names)

    def __getitem__(self, part: Id) -> nn.Module:
        return self.model.get_submodule(self.names[part])

    @property
    def kind(self) -> str:
        """Registered name of the class, by which a record finds it."""
        return type(self).__name__

    @property
    def ids(self) -> List[Id]:
        """Ids of all parts of the uncompressed model, in its order."""
        return list(self.names)

    @abstractmethod
    def _find_parts(self) -> Dict[Id, str]:
        """Find the parts at ``self.path``; see :attr:`names`."""

    @property
    @abstractmethod
    def remaining(self) -> List[Id]:
        """Ids of the parts that have not been removed, in model order."""

    def block_of(self, part: Id) -> str:
        """Dotted path of the block that a part is, or that holds it."""
        return self.names[part]

    @abstractmethod
    def stand_in(self, part: Id) -> nn.Module:
        """Make the module that takes the place of a part.

        Args:
            part: Id of the part.

        Returns:
            A module that is called as the part is.
        """

    @abstractmethod
    def _take_out(self, part: Id) -> Undo:
        """Replace a part, and return what puts it back."""

    def candidates(self) -> List[Id]:
        """List the parts that can be removed now.

        Returns:
            Their ids, in the order in which they run.
        """
        remaining = {*self.remaining} - {*self.fixed}
        return [i for i in self.order if i in remaining]

    @property
    def why_fixed(self) -> str:
        """A sentence on the fixed parts; empty without any."""
        reasons = [f'{self.names[i]} {why}' for i, why in self.fixed.items()]
        return f' Fixed: {"; ".join(reasons)}.' if reasons else ''

    # --------------------------------------------------------------- removal
    def check(self, part: Id) -> None:
        """Raise if a part cannot be removed.

        Args:
            part: Id of the part.

        Raises:
            ValueError: No such part, removed already, fixed, or the last one.
        """
        name = f'{self.unit.capitalize()} {part} of {self.path!r}'
        if part not in self.names:
            raise ValueError(f'{name} does not exist: it has {self.units} '
                             f'{_listing(self.ids)}.')
        if part not in self.remaining:
            raise ValueError(f'{name} has been removed already; remaining are '
                             f'{self.remaining}.')
        if part in self.fixed:
            raise ValueError(
                f'{name} ({self.names[part]}) has to stay: {self.fixed[part]}'
                f'. {self.units.capitalize()} that may go: '
                f'{self.candidates() or "none"}.')
        if len(self.remaining) == 1:
            raise ValueError(f'{name} is the last one and stays.')

    def check_known(self, parts: Sequence[Id], key: str) -> None:
        """Raise if an id is not one of this structure.

        Args:
            parts: Ids.
            key: Config key they come from.

        Raises:
            ValueError: Names the key, the id and those there are.
        """
        for part in parts:
            if part not in self.names or isinstance(part, bool):
                raise ValueError(
                    f'{key} names {self.unit} {part!r}; {self.path!r} has '
                    f'{self.units} {_listing(self.ids)}.')

    def remove(self, part: Id) -> None:
        """Remove a part for good.

        Args:
            part: Id of the part.

        Raises:
            ValueError: See :meth:`check`.
        """
        self.check(part)
        self._take_out(part)

    @contextmanager
    def without(self, part: Id) -> Iterator[None]:
        """Leave a part out inside a ``with`` statement.

        Args:
            part: Id of the part.

        Raises:
            ValueError: See :meth:`check`.
        """
        self.check(part)
        undo = self._take_out(part)
        try:
            yield
        finally:
            undo()

    def _changed(self, block: str) -> None:
        """Tell whoever declares a block that its stack has changed."""
        place = find_place(self.model, block)
        if place is not None and place.spec.changed is not None:
            place.spec.changed(place.owner)

    def _put(self, name: str, module: nn.Module) -> nn.Module:
        """Put a module where another is, and return that."""
        parent_name, _, last = name.rpartition('.')
        parent = self.model.get_submodule(parent_name)
        old = parent._modules[last]
        parent._modules[last] = module
        assert old is not None
        return old

    # ----------------------------------------------------------------- probe
    def probe(self, run: Callable[[], Any]) -> None:
        """Find out which parts may be removed, by running the model.

        A part may go if what it is given can stand for what it returns, and
        if the model runs without it. The others are fixed.

        Args:
            run: Runs the model on a few samples, in evaluation mode: ``lambda:
                model(inputs)``.
        """
        found = probe_modules({i: self[i] for i in self.remaining},
                              self.names, run)
        self.fixed, self.idle = found.fixed, found.idle
        self._note_bypass(found.bypass)
        ran = [i for i in self.ids if i in set(found.order)]
        self.order = self.ids
        if found.order != ran:
            rest = [i for i in self.ids if i not in set(found.order)]
            self.order = found.order + rest
        if not self._error_without(self.candidates(), run):
            return
        for part in self.candidates():
            error = self._error_without([part], run)
            if error:
                self.fixed[part] = f'without it the model fails: {error}'

    def _note_bypass(self, bypass: Dict[Id, Bypass]) -> None:
        """Take notice of what a probe found to stand for the outputs."""

    def _error_without(self, parts: Sequence[Id],
                       run: Callable[[], Any]) -> Optional[str]:
        """Run the model without some parts; say what goes wrong."""
        undos = [self._take_out(part) for part in parts]
        try:
            with torch.no_grad():
                run()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a foreign model may raise
            return f'{type(error).__name__}: {error}'.split('\n')[0]
        finally:
            for undo in reversed(undos):
                undo()
        return None

    # ---------------------------------------------------------------- record
    @property
    def probed(self) -> Dict[str, Any]:
        """What a probe found, as plain data for a record."""
        found: Dict[str, Any] = dict(
            fixed={str(i): why
                   for i, why in self.fixed.items()})
        if self.order != self.ids:
            found['order'] = self.order
        return found

    def record(self) -> Dict[str, Any]:
        """What a record must hold to remove the same from a fresh model.

        Returns:
            Plain data: ``kind``, ``stack`` and ``depth``, the number of parts.
        """
        return dict(kind=self.kind, stack=self.path, depth=len(self))

    @classmethod
    def replay(cls, model: nn.Module, record: Dict[str, Any]) -> 'Structure':
        """Remove from a fresh model what a record says was removed.

        Parts that are removed already stay removed, so replaying twice does no
        harm.

        Args:
            model: The uncompressed localizer.
            record: A record of version 2.

        Returns:
            The structure of the model.

        Raises:
            ValueError: The model has other parts than the one that the record
                was made from.
        """
        structure = cls(model, record['stack'], record.get('probe'))
        if len(structure) != record['depth']:
            raise ValueError(
                f'The checkpoint was compressed from a model with '
                f'{record["depth"]} {cls.units} in {record["stack"]!r}; this '
                f'config builds {len(structure)}.')
        removed = removed_ids(record)
        structure.check_known(removed, 'The record of the run')
        for part in removed:
            if part in structure.remaining:
                structure.remove(part)
        return structure


def _listing(ids: Sequence[Id]) -> str:
    """Name ids in a few words."""
    if ids == [*range(len(ids))]:
        return f'0 to {len(ids) - 1}'
    return ', '.join(map(str, ids))
