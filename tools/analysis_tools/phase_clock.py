"""Exclusive time of nested phases, counted around methods."""
import functools
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Sequence

import torch

PHASES = ('decode', 'score', 'teacher', 'student', 'backward', 'optimizer',
          'evaluate', 'rest')


class Clock:
    """Exclusive time of nested phases.

    Attributes:
        seconds: Time of each phase.
        calls: How often each was entered.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again, outside of all phases but the present ones."""
        self.seconds = dict.fromkeys(PHASES, 0.)
        self.calls = dict.fromkeys(PHASES, 0)
        self._open: List[str] = getattr(self, '_open', ['rest'])
        self._since = self._now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside for ``name``."""
        self._switch()
        self._open.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def inside(self, name: str) -> bool:
        """Whether a phase is open."""
        return name in self._open

    def _switch(self) -> None:
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def stop(self) -> None:
        """Count the time up to now."""
        self._switch()

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def replaced(owner: Any, name: str,
             make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Put something around a method of a class for a while."""
    old = owner.__dict__[name]
    setattr(owner, name, functools.wraps(old)(make(old)))
    try:
        yield
    finally:
        setattr(owner, name, old)


def timed(clock: Clock, name: str,
          quiet_in: Sequence[str] = ()) -> Callable[[Callable], Callable]:
    """Wrapper that counts calls of a method as a phase.

    Args:
        clock: Where to count.
        name: The phase.
        quiet_in: Not inside these phases.

    Returns:
        For :func:`replaced`.
    """

    def make(old: Callable) -> Callable:

        def method(*args: Any, **kwargs: Any) -> Any:
            if any(map(clock.inside, quiet_in)):
                return old(*args, **kwargs)
            with clock.phase(name):
                return old(*args, **kwargs)

        return method

    return make
