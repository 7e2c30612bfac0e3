"""A teacher that goes no further than the student has come.

The teacher runs in a thread of its own and waits at every module that an
alignment compares until the student has come there, so that of its features
only the one that is compared next exists. One of the two runs at a time.
"""
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator

import torch
from torch import Tensor, nn

from .recorder import joined, listen


class RunsAgain(RuntimeError):
    """A module ran again after its output had been compared."""


class _Left(BaseException):
    """Nobody waits for the teacher any more."""


class WalkingTeacher:
    """Runs a teacher up to where its features are asked for.

    Use it in a ``with`` statement, which ends the thread. Without a call of
    :meth:`until` before :meth:`finish` there is no thread.

    Args:
        teacher: The teacher.
        paths: See :func:`~.taps.listen`.
        run: Runs it once.

    Raises:
        RunsAgain: From both methods: a module runs again whose output was
            taken away.

    Attributes:
        outputs: Path to output, as far as it has come; to be emptied by
            whoever has compared them.
        runs: Path to how often the module has run.
    """

    def __init__(self, teacher: nn.Module, paths: Iterable[str],
                 run: Callable[[], Any]) -> None:
        self.outputs: Dict[str, Any] = {}
        self.runs: Counter = Counter()
        self._teacher, self._paths, self._run = teacher, list(paths), run
        self._thread: Any = None
        self._turn, self._news = (threading.Semaphore(0) for _ in range(2))
        self._ended = self._left = False
        self._error: Any = None

    def __enter__(self) -> 'WalkingTeacher':
        return self

    def __exit__(self, *exc: Any) -> None:
        self._left = True
        if self._thread is not None:
            self._turn.release()
            self._thread.join()

    def until(self, path: str, ours: Any) -> None:
        """Go on until a module has given as many rows as the student's.

        Args:
            path: The module.
            ours: What it has returned in the student.

        Raises:
            BaseException: What the teacher raises.
        """
        while not self._ended and not self._reaches(path, ours):
            if self._thread is None:
                self._start()
            self._turn.release()
            self._news.acquire()
            self._complain()

    def finish(self) -> None:
        """Go to the end.

        Raises:
            BaseException: What the teacher raises.
        """
        if self._thread is None and not self._ended:
            self._walk()
            self._ended = True
        while not self._ended:
            self._turn.release()
            self._news.acquire()
        self._complain()

    @property
    def together(self) -> bool:
        """Whether the student is on its way at the same time."""
        return self._thread is not None

    def _reaches(self, path: str, ours: Any) -> bool:
        if path not in self.outputs:
            return False
        theirs = self.outputs[path]
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            return len(theirs) >= len(ours)
        return True

    def _start(self) -> None:
        device = next(self._teacher.parameters()).device
        self._thread = threading.Thread(
            target=self._work, args=(_as_here(device), ), daemon=True)
        self._thread.start()

    def _work(self, as_there: Callable[[], ContextManager]) -> None:
        """What the thread does."""
        self._turn.acquire()
        try:
            if not self._left:
                with as_there():
                    self._walk()
        except _Left:
            pass
        except BaseException as error:  # raised again by the student
            self._error = error
        finally:
            self._ended = True
            self._news.release()

    def _walk(self) -> None:
        with torch.no_grad(), listen(self._teacher, self._paths, self._heard):
            self._run()

    def _heard(self, path: str, value: Any) -> None:
        """Take an output, and wait where the student is not there yet."""
        if path in self.runs and path not in self.outputs:
            raise RunsAgain(path)
        self.outputs[path] = joined(path, self.outputs, value)
        self.runs[path] += 1
        if self.together:
            del value
            self._news.release()
            self._turn.acquire()
            if self._left:
                raise _Left

    def _complain(self) -> None:
        if self._error is not None:
            raise self._error


def _as_here(device: torch.device) -> Callable[[], ContextManager]:
    """What PyTorch keeps for each thread: precision, stream."""
    kind = device.type
    try:
        enabled, dtype = torch.is_autocast_enabled(
            kind), torch.get_autocast_dtype(kind)
    except (AttributeError, TypeError):  # before torch 2.4
        cpu = kind == 'cpu'
        enabled = (torch.is_autocast_cpu_enabled()
                   if cpu else torch.is_autocast_enabled())
        dtype = (torch.get_autocast_cpu_dtype()
                 if cpu else torch.get_autocast_gpu_dtype())
    stream = torch.cuda.current_stream(device) if kind == 'cuda' else None

    @contextmanager
    def state() -> Iterator[None]:
        with ExitStack() as stack:
            if stream is not None:
                stack.enter_context(torch.cuda.stream(stream))
            if enabled:
                stack.enter_context(torch.autocast(kind, dtype))
            yield

    return state
