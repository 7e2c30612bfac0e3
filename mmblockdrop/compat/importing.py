"""Run a patch when its module is imported, without importing it early.

``import mmblockdrop`` must stay cheap, and a patch must not import the package
that it patches. It therefore waits here until somebody imports its module.
"""
import sys
from collections import defaultdict
from contextlib import nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import (Callable, ContextManager, DefaultDict, Dict, List,
                    Optional, Sequence, Tuple)

Fill = Callable[[ModuleType], None]
Rescue = Callable[[ModuleType, Exception], None]
Around = Callable[[], ContextManager[None]]


class _StandInLoader(Loader):
    """Load a module whose contents one function writes.

    Args:
        fill: Called with the empty module.
    """

    def __init__(self, fill: Fill) -> None:
        self.fill = fill

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        self.fill(module)


class PatchFinder(MetaPathFinder):
    """Find modules as usual and attach the patches that wait for them."""

    def __init__(self) -> None:
        self.after: DefaultDict[str, List[Fill]] = defaultdict(list)
        self.around: Dict[str, Around] = {}
        self.rescues: Dict[str, Rescue] = {}
        self.stand_ins: Dict[str, Tuple[Fill, bool]] = {}

    def find_spec(self,
                  fullname: str,
                  path: Optional[Sequence[str]] = None,
                  target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        """Return the module's own spec, its loader extended by the patches."""
        if fullname in self.stand_ins:
            spec = self._own_spec(fullname, path, target)
            if spec is not None:
                return spec
            fill, is_package = self.stand_ins[fullname]
            return spec_from_loader(
                fullname, _StandInLoader(fill), is_package=is_package)
        if not any(fullname in patches for patches in (
                self.after, self.around, self.rescues)):
            return None
        spec = self._own_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            # Each spec has a loader of its own, so this reaches no other
            # module, and tools that ask the loader for source still work.
            spec.loader.exec_module = self._extended(  # type: ignore
                fullname, spec.loader.exec_module)
        return spec

    def _own_spec(self, fullname: str, path: Optional[Sequence[str]],
                  target: Optional[ModuleType]) -> Optional[ModuleSpec]:
        """Ask the other finders."""
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None

    def _extended(self, fullname: str, execute: Fill) -> Fill:
        """Wrap the loader's ``exec_module``."""

        def exec_module(module: ModuleType) -> None:
            try:
                with self.around.get(fullname, nullcontext)():
                    execute(module)
            except Exception as error:
                if fullname not in self.rescues:
                    raise
                self.rescues[fullname](module, error)
            for patch in self.after.get(fullname, ()):
                patch(module)

        return exec_module


_FINDER = PatchFinder()


def _install() -> None:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def after_import(name: str, patch: Fill) -> None:
    """Call ``patch(module)`` once the module is imported, or now if it is.

    Args:
        name: Full name of the module.
        patch: Gets the module.
    """
    if name in sys.modules:
        patch(sys.modules[name])
        return
    _FINDER.after[name].append(patch)
    _install()


def around_import(name: str, around: Around) -> None:
    """Execute a module inside a context.

    Args:
        name: Full name of the module.
        around: Gives the context.
    """
    _FINDER.around[name] = around
    _install()


def on_failed_import(name: str, rescue: Rescue) -> None:
    """Call ``rescue(module, error)`` where importing the module fails.

    Args:
        name: Full name of the module.
        rescue: Gets the half-executed module, which then counts as imported,
            and the exception, of whatever type.
    """
    _FINDER.rescues[name] = rescue
    _install()


def stand_in(name: str, fill: Fill, is_package: bool = False) -> None:
    """Provide a module where the installed package has none of that name.

    Args:
        name: Full name of the module. A real one always wins.
        fill: Writes the contents into the empty module.
        is_package: Whether it has submodules. Defaults to False.
    """
    _FINDER.stand_ins[name] = (fill, is_package)
    _install()
