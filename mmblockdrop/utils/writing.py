"""Write files that are either whole or absent."""
import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union


@contextmanager
def whole_file(path: Union[str, Path],
               suffix: str = '.tmp') -> Iterator[Path]:
    """Write to a temporary name that becomes ``path`` if all goes well.

    Args:
        path: Final name, in a folder that exists.
        suffix: Added to it meanwhile. Give one of its own to each of several
            processes that may write the same file, and the usual ending where
            a writer goes by it. Defaults to ``'.tmp'``.

    Yields:
        The temporary name. Nothing is left of it after an error; what a killed
        process leaves, the next one with that suffix replaces.

    Raises:
        FileNotFoundError: The folder has been removed.
        OSError: Writing failed; ``filename`` says where.
    """
    path = Path(path)
    check_folder(path.parent)
    temporary = path.with_name(path.name + suffix)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        try:
            temporary.unlink()
        except OSError:
            pass
        raise


def check_folder(folder: Path) -> None:
    """Refuse a folder that is gone.

    Args:
        folder: Folder that is written into.

    Raises:
        FileNotFoundError: It is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT,
                                'The folder was removed while the run wrote '
                                'into it', str(folder))
