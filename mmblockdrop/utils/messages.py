"""Checks of settings, with errors that name the key and the nearest choice."""
import difflib
import inspect
import math
import os
import os.path as osp
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, Union

#: Choices that an error lists in full.
MAX_LISTED = 12
#: Arguments of mmengine's loops, which a config may inherit.
INHERITED = ('by_epoch', 'max_epochs', 'max_iters')


def did_you_mean(value: Any, choices: Iterable[Any]) -> str:
    """The nearest of several choices, for the end of an error.

    Args:
        value: What was found.
        choices: What was expected.

    Returns:
        ``"; did you mean 'x'?"``, or ``''`` if no choice is similar.
    """
    near = difflib.get_close_matches(
        str(value), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return f'; did you mean {near[0]!r}?' if near else ''


def listed(choices: Iterable[Any]) -> str:
    """Several choices in words, the first twelve of many.

    Args:
        choices: What was expected.

    Returns:
        ``"'a', 'b' and 3 more"``, or ``'none'``.
    """
    shown = [repr(choice) for choice in choices]
    if len(shown) > MAX_LISTED:
        more = len(shown) - MAX_LISTED
        return f'{", ".join(shown[:MAX_LISTED])} and {more} more'
    return ', '.join(shown) or 'none'


def require_choice(key: str, value: Any, choices: Iterable[Any]) -> None:
    """Check that a setting is one of several choices.

    Args:
        key: Config key.
        value: Its value.
        choices: What is expected.

    Raises:
        ValueError: It is none of them; names the nearest.
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(f'{key}={value!r}: expected one of {listed(choices)}'
                         f'{did_you_mean(value, choices)}')


def find_video(key: str, video: str, known: Collection[str]) -> str:
    """Name of a video in a file, with or without ActivityNet's ``v_``.

    Args:
        key: Config key and file.
        video: The name in the data set.
        known: Names in the file.

    Returns:
        The name in the file.

    Raises:
        ValueError: The file has no such video; names the nearest.
    """
    for name in (video, video.removeprefix('v_'), f'v_{video}'):
        if name in known:
            return name
    raise ValueError(
        f'{key} does not know video {video!r}; it has {len(known)} videos '
        f'and must cover the subset that is used{did_you_mean(video, known)}')


def require_whole(key: str, value: Any, least: int) -> None:
    """Check that a setting is a whole number and large enough.

    Args:
        key: Config key.
        value: Its value.
        least: The smallest number allowed.

    Raises:
        ValueError: It is another type or smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{key}={value!r}: expected a whole number, at '
                         f'least {least}')


def require_finite(value: Any, what: str) -> float:
    """Check a metric or a score where it enters.

    Args:
        value: What an evaluator, a scorer or a file gave.
        what: Names it, for the error: ``'Block 3 has loss'``.

    Returns:
        The value.

    Raises:
        ValueError: It is not a number, NaN or infinite.
    """
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{what}={value!r}: expected a finite number')
    return number


def require_file(path: Union[str, Path], key: str) -> None:
    """Check that a file exists. A URL is not checked.

    Args:
        path: The file.
        key: Config key or argument that gave it.

    Raises:
        FileNotFoundError: It does not exist; names the deepest folder that
            does, and the nearest name in it.
        IsADirectoryError: It is a folder.
    """
    if '://' in str(path):
        return
    _require_path(path, key)
    if osp.isdir(path):
        raise IsADirectoryError(
            f'{key}={str(path)!r} is a folder, expected a file')


def require_folder(path: Union[str, Path], key: str) -> None:
    """Check that a folder exists.

    Args:
        path: The folder.
        key: Config key or argument that gave it.

    Raises:
        FileNotFoundError: See :func:`require_file`.
        NotADirectoryError: It is a file.
    """
    _require_path(path, key)
    if not osp.isdir(path):
        raise NotADirectoryError(
            f'{key}={str(path)!r} is a file, expected a folder')


def _require_path(path: Union[str, Path], key: str) -> None:
    """Check that a file or folder exists."""
    if osp.exists(path):
        return
    parent, missing = osp.split(osp.normpath(path))
    while parent and not osp.isdir(parent):
        parent, missing = osp.split(parent)
    parent = parent or '.'
    raise FileNotFoundError(
        f'{key}={str(path)!r} does not exist: the folder '
        f'{osp.abspath(parent)!r} has no {missing!r}'
        f'{did_you_mean(missing, sorted(os.listdir(parent)))}')


def reject_unknown(owner: type, given: Dict[str, Any], key: str) -> None:
    """Reject arguments that a class does not have.

    Args:
        owner: The class.
        given: Arguments that its constructor could not place.
        key: Config key they come from.

    Raises:
        ValueError: There is one; names the nearest that the class has.
    """
    parameters = inspect.signature(owner.__init__).parameters
    known = [
        name for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and name not in ('self', 'runner', 'dataloader')
    ]
    for name in given:
        hint = f'expected {listed(known)}{did_you_mean(name, known)}'
        if name in INHERITED:
            hint = ('it comes from the config that is inherited; add '
                    f'_delete_=True to {key}')
        raise ValueError(f'{key} has {name!r}, which {owner.__name__} does '
                         f'not take: {hint}')


def check_arguments(owner: type, cfg: Dict[str, Any], key: str) -> None:
    """Reject a config with arguments that its class does not have.

    Args:
        owner: The class.
        cfg: Its config, with ``type``.
        key: Config key of it.

    Raises:
        ValueError: See :func:`reject_unknown`.
    """
    parameters = inspect.signature(owner.__init__).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        reject_unknown(
            owner, {
                name: value
                for name, value in cfg.items()
                if name != 'type' and name not in parameters
            }, key)
