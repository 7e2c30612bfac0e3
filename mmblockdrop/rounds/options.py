"""Refuse settings that nobody reads, and numbers that mean nothing."""
import difflib
import inspect
from typing import Any, Dict

#: Arguments of mmengine's loops, which a config may inherit.
INHERITED = ('by_epoch', 'max_epochs', 'max_iters')


def refuse_unknown(owner: type, given: Dict[str, Any], key: str) -> None:
    """Refuse arguments that a class does not have.

    Args:
        owner: The class.
        given: Arguments that its constructor could not place.
        key: Config key they come from.

    Raises:
        ValueError: There is one; names the nearest that is known.
    """
    parameters = inspect.signature(owner).parameters
    known = [
        name for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and name not in ('runner', 'dataloader')
    ]
    for name in given:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        hint = f'Did you mean {near[0]!r}? Known are {known}.' if near else (
            'It takes none.')
        if name in INHERITED:
            hint = ('It comes from the config that is inherited: add '
                    f'_delete_=True to {key}.')
        raise ValueError(f'{key} has {name!r}, which {owner.__name__} does '
                         f'not know. {hint}')


def check_arguments(owner: type, cfg: Dict[str, Any], key: str) -> None:
    """Refuse a config with arguments that its class does not have.

    Args:
        owner: The class.
        cfg: Its config, with ``type``.
        key: Where the config stands.

    Raises:
        ValueError: See :func:`refuse_unknown`.
    """
    parameters = inspect.signature(owner).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        refuse_unknown(
            owner, {
                name: value
                for name, value in cfg.items()
                if name != 'type' and name not in parameters
            }, key)


def require_whole(key: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        key: Config key.
        value: What it says.
        least: The smallest number that means something.

    Raises:
        ValueError: Names the key, what was found and what is expected.
    """
    if not isinstance(value, int) or value < least:
        raise ValueError(f'{key}={value!r}: expected a whole number, at '
                         f'least {least}.')
