"""Largest memory of a piece of work, in a process of its own."""
import multiprocessing
import re
import resource
from pathlib import Path
from typing import Any, Callable

import torch

#: Linux counts here, and starts anew when told to.
STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def peak_resident() -> int:
    """Largest resident size of this process so far.

    Returns:
        Bytes.
    """
    if STATUS.exists():
        match = re.search(r'VmHWM:\s*(\d+) kB', STATUS.read_text())
        if match:
            return int(match.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Resident size of this process at present, where Linux tells it.

    Returns:
        Bytes.

    Raises:
        RuntimeError: If the system does not tell.
    """
    match = STATUS.exists() and re.search(r'VmRSS:\s*(\d+) kB',
                                          STATUS.read_text())
    if not match:
        raise RuntimeError(f'{STATUS} tells no memory')
    return int(match.group(1)) * 1024


def restart_peak() -> int:
    """Count the peak from now on, where the system can.

    Returns:
        Bytes to subtract from a later peak.
    """
    try:
        CLEAR.write_text('5')
    except OSError:
        pass
    return peak_resident()


def in_new_process(function: Callable, *args: Any) -> Any:
    """Call a function where nothing was computed before.

    Args:
        function: Of a module; runs with as many threads as this process has.
        *args: Its arguments.

    Returns:
        What it returns.

    Raises:
        RuntimeError: If it fails.
    """
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work,
        args=(theirs, torch.get_num_threads(), function, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f'{function.__name__} failed in its own process, '
                           f'exit code {process.exitcode}') from None
    finally:
        process.join()


def _work(pipe: Any, threads: int, function: Callable, args: tuple) -> None:
    torch.set_num_threads(threads)
    pipe.send(function(*args))
    pipe.close()
