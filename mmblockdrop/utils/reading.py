"""Read JSON, text and arrays of strangers, within bounds.

Nothing that these functions read is executed, and a file cannot make them
take more memory than a small multiple of its own size.
"""
import json
import os
from pathlib import Path
from typing import Any, Union

import numpy as np

#: Largest files that are read, in bytes. ActivityNet's annotations take 10
#: MB, its video-level classifier 20 MB, the list of its classes 4 kB.
MAX_JSON = 2 << 30
MAX_TEXT = 16 << 20


def read_json(path: Union[str, Path], key: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        key: The config key that gave it, for errors.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger than 2 GiB, not UTF-8, no JSON, or nested
            too deeply to be read.
    """
    text = _read_text(path, key, MAX_JSON)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{key}={str(path)!r} is not valid JSON: {error}') from error
    except RecursionError:
        raise ValueError(f'{key}={str(path)!r} nests lists or mappings too '
                         'deeply to be read') from None


def read_lines(path: Union[str, Path], key: str) -> list:
    """Read the lines of a text file that are not empty.

    Args:
        path: The file.
        key: The config key that gave it, for errors.

    Returns:
        Lines without white space at their ends.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger than 16 MiB or no text.
    """
    text = _read_text(path, key, MAX_TEXT)
    if '\0' in text:
        raise ValueError(f'{key}={str(path)!r} is no text: it holds zero '
                         'bytes')
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_text(path: Union[str, Path], key: str, limit: int) -> str:
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
    except IsADirectoryError:
        raise ValueError(f'{key}={str(path)!r} is a folder, expected a file'
                         ) from None


def read_array(path: Union[str, Path], key: str) -> np.ndarray:
    """Read a ``.npy`` array of numbers.

    A header that promises more than the file holds is refused before memory
    is taken for it.

    Args:
        path: The file.
        key: The config key that gave it, for errors.

    Returns:
        The array.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no array, cut off, or holds objects.
    """
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError('it is an archive of several arrays')
        if array.dtype.kind not in 'biuf':
            raise ValueError(f'its entries are {array.dtype}')
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f'{key}={str(path)!r} is no array of numbers: '
                         f'{error}') from error
    return np.array(array)
