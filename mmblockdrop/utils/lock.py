"""One run at a time in a work directory."""
import os
import socket
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Dict, Iterator, Optional

from mmengine.dist import broadcast_object_list, is_main_process

from .io import PathLike

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

#: The file that is locked. It stays when the run ends; the lock does not.
LOCK = 'run.lock'
#: Real paths of the folders that this run owns, with the files that are locked
#: (on the first process).
_owned: Dict[str, Optional[IO[str]]] = {}


class WorkDirInUse(RuntimeError):
    """Another run owns the work directory."""


@contextmanager
def owned(work_dir: PathLike) -> Iterator[None]:
    """Own a work directory inside a ``with`` statement.

    The system releases the lock when the process ends, however it ends. A run
    that owns the folder already may own it again inside. Of several processes
    the first takes the lock; all of them call this.

    Args:
        work_dir: The folder; made if it does not exist. Where its file system
            or the platform has no locks, a warning says so.

    Raises:
        WorkDirInUse: Another run owns it; names the folder and its process.
    """
    folder = os.path.realpath(work_dir)
    if folder in _owned:
        yield
        return
    file, refused = None, ['']
    if is_main_process():
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = open(Path(folder) / LOCK, 'a+')
        refused = [_lock(file, folder)]
    broadcast_object_list(refused)
    try:
        if refused[0]:
            raise WorkDirInUse(refused[0])
        _owned[folder] = file
        yield
    finally:
        _owned.pop(folder, None)
        if file is not None:
            file.close()


def _lock(file: IO[str], folder: str) -> str:
    """Lock a file and write into it who did; say who else has."""
    try:
        if fcntl is None:
            raise OSError('this platform has no fcntl')
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or 'another process'
        return (f'work_dir={folder!r} is in use by {holder}: two runs in one '
                'folder overwrite each other. Wait for that one, end it, or '
                'choose another --work-dir.')
    except OSError as error:
        warnings.warn(f'{folder} cannot be locked ({error}): nothing keeps a '
                      'second run out of it')
        return ''
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    return ''


def _release_in_child() -> None:
    """A forked child (a worker of a loader) does not keep the lock."""
    for file in _owned.values():
        if file is not None:
            file.close()
    _owned.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_release_in_child)
