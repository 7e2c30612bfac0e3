"""Write files whole, and read JSON, text and arrays within bounds.

Nothing that the readers read is executed, and a file cannot make them take
more memory than a small multiple of its own size.
"""
import errno
import json
import math
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np

from .messages import require_file

PathLike = Union[str, Path]
#: Largest files that are read, in bytes. ActivityNet's annotations take 10
#: MB, its video-level classifier 20 MB, the list of its classes 4 kB.
MAX_JSON = 2 << 30
MAX_TEXT = 16 << 20


@contextmanager
def whole_file(path: PathLike, suffix: str = '.tmp') -> Iterator[Path]:
    """Write a file that is either whole or absent, also after a power cut.

    The content goes to a temporary name. It is flushed to the disk, renamed,
    and the folder is flushed too.

    Args:
        path: Final name, in a folder that exists.
        suffix: Ending of the temporary name. Several processes that may write
            the same file need one each; some writers need a known ending such
            as ``'.part.mp4'``.

    Yields:
        The temporary name. It is removed after an error. If the process
        is killed it stays, until the next one with that suffix replaces it.

    Raises:
        FileNotFoundError: The folder has been removed.
        OSError: Writing failed; ``filename`` says where.
    """
    path = Path(path)
    check_folder(path.parent)
    temporary = path.with_name(path.name + suffix)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        if os.name != 'nt':  # Windows opens no folders
            _flush(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        try:
            temporary.unlink()
        except OSError:
            pass
        raise


def _flush(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    flags = os.O_RDWR if os.name == 'nt' else os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_folder(folder: Path) -> None:
    """Check that a folder that is written into still exists.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: It does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT,
                                'The folder was removed while the run wrote '
                                'into it', str(folder))


def write_json(content: Any, path: PathLike,
               indent: Optional[int] = 2) -> None:
    """Write JSON, whole or not at all.

    Args:
        content: Plain data, tensors and arrays; see :func:`json_data`.
        path: The file.
        indent: Columns per level; None writes one line.

    Raises:
        OSError: See :func:`whole_file`.
    """
    with whole_file(path) as temporary:
        temporary.write_text(
            json.dumps(json_data(content), indent=indent, allow_nan=False) +
            '\n')


def json_data(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Args:
        value: Plain data; tensors, arrays and their scalars become lists and
            numbers.

    Returns:
        The same; what is NaN or infinite, which JSON does not know, is None.
    """
    if isinstance(value, dict):
        return {key: json_data(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_data(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, 'tolist'):
        return json_data(value.tolist())
    return value


def read_json(path: PathLike, key: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        key: Config key or argument that gave it, for errors.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: It does not exist.
        IsADirectoryError: It is a folder.
        ValueError: It is larger than 2 GiB, not UTF-8, not JSON, nested too
            deeply, or a mapping in it has a key twice.
    """
    text = read_text(path, key, MAX_JSON)
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except ValueError as error:  # or a number of too many digits
        raise ValueError(
            f'{key}={str(path)!r} is not JSON: {error}') from error
    except RecursionError:
        raise ValueError(f'{key}={str(path)!r} nests lists or mappings too '
                         'deeply') from None


def _mapping(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """A mapping of JSON; Python itself would keep the last of equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'a mapping has the key {twice!r} twice')
    return found


def read_lines(path: PathLike, key: str) -> List[str]:
    """Read the lines of a text file that are not empty.

    Args:
        path: The file.
        key: Config key or argument that gave it, for errors.

    Returns:
        Lines without white space at their ends.

    Raises:
        FileNotFoundError: It does not exist.
        IsADirectoryError: It is a folder.
        ValueError: It is larger than 16 MiB or not text.
    """
    text = read_text(path, key)
    if '\0' in text:
        raise ValueError(f'{key}={str(path)!r} is not text: it holds zero '
                         'bytes')
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_text(path: PathLike, key: str, limit: int = MAX_TEXT) -> str:
    """Read a text file.

    Args:
        path: The file.
        key: Config key or argument that gave it, for errors.
        limit: Bytes that are read at most.

    Returns:
        Its content, without a byte order mark.

    Raises:
        FileNotFoundError: It does not exist.
        IsADirectoryError: It is a folder.
        ValueError: It is larger or not UTF-8.
    """
    require_file(path, key)
    size = os.path.getsize(path)
    if size > limit:
        raise ValueError(f'{key}={str(path)!r} has {size} bytes; at most '
                         f'{limit} are read')
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{key}={str(path)!r} is not UTF-8 text: byte '
                         f'{error.start} is {error.object[error.start]:#04x}'
                         ) from error


def read_array(path: PathLike, key: str) -> np.ndarray:
    """Read a ``.npy`` array of numbers.

    A header that promises more than the file holds is rejected before memory
    is taken for it.

    Args:
        path: The file.
        key: Config key or argument that gave it, for errors.

    Returns:
        The array.

    Raises:
        FileNotFoundError: It does not exist.
        IsADirectoryError: It is a folder.
        ValueError: It is not an array, cut off, or holds objects.
    """
    require_file(path, key)
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError('it is an archive of several arrays')
        if array.dtype.kind not in 'biuf':
            raise ValueError(f'its entries are {array.dtype}')
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f'{key}={str(path)!r} is not an array of numbers: '
                         f'{error}') from error
    return np.array(array)
