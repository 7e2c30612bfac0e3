"""The record of a run: what was removed, in which round, and why.

It is plain data, in ``blockdrop.json`` and in a checkpoint's
``meta['blockdrop']``. Version 2 adds ``version`` and ``kind``, the registered
name of the structure, to version 1, which knew whole blocks only.
"""
import copy
import re
from typing import Any, Dict, List, Sequence, Union

from mmblockdrop.registry import STRUCTURES
from mmblockdrop.utils.messages import require_choice

from torch import nn

#: What a removable part is called in a record: a number or a name.
Id = Union[int, str]
#: The version that is written.
VERSION = 2
#: Keys that every record has.
KEYS = ('stack', 'depth', 'rounds')
#: Name of a registered structure, with or without its scope.
KIND = re.compile(r'(\w+\.)?\w+')


def upgrade_record(record: Dict[str, Any]) -> Dict[str, Any]:
    """Bring a record of any version to the form of today.

    Args:
        record: Content of ``blockdrop.json`` or ``meta['blockdrop']``.

    Returns:
        A copy of version 2.

    Raises:
        ValueError: The version is not known, a key is missing, or a value is
            of another type or out of range.
    """
    if not isinstance(record, dict):
        raise ValueError('The record of the run is a '
                         f'{type(record).__name__}, expected a mapping.')
    version = record.get('version', 1)
    if version not in (1, VERSION):
        raise ValueError(f'The record of the run has version={version!r}, '
                         f'expected 1 or {VERSION}: it was written by a newer '
                         'mmblockdrop.')
    missing = [key for key in KEYS if key not in record]
    if missing:
        raise ValueError(f'The record of the run lacks {missing}; it has '
                         f'{sorted(map(str, record))}.')
    record = copy.deepcopy(record)
    record.setdefault('kind', 'BlockStack')
    check_record(record)
    return dict(record, version=VERSION)


def check_record(record: Dict[str, Any]) -> None:
    """Check the types and ranges of a record.

    Args:
        record: The record, of any version.

    Raises:
        ValueError: Names the key, what was found and what was expected.
    """
    rounds = record['rounds']
    depth = record['depth']
    _expect(isinstance(depth, int) and not isinstance(depth, bool)
            and depth > 0, 'depth', depth, 'a whole number, at least 1')
    _expect(_is_path(record['stack']), 'stack', record['stack'],
            'a dotted path or a list of them')
    _expect(isinstance(record['kind'], str), 'kind', record['kind'], 'a name')
    _expect(
        isinstance(rounds, list) and all(isinstance(r, dict) for r in rounds),
        'rounds', rounds, 'a list of mappings')
    ids = record.get('ids')
    _expect(ids is None or _are_ids(ids) and len(ids) == depth, 'ids', ids,
            f'a list of {depth} ids')
    lists = [('start_dropped', record.get('start_dropped', []))]
    lists += [(f'rounds[{number}].dropped', entry.get('dropped', []))
              for number, entry in enumerate(rounds)]
    for key, value in lists:
        _expect(_are_ids(value), key, value, 'a list of ids')
        if ids is None:  # blocks; names are compared with the model's
            _expect(
                all(isinstance(i, str) or 0 <= i < depth for i in value), key,
                value, f'blocks 0 to {depth - 1}')
    removed = removed_ids(record)
    twice = sorted({str(i) for i in removed if removed.count(i) > 1})
    _expect(not twice, 'rounds', removed, f'{twice} to be removed once')
    _expect(
        len(removed) < depth, 'rounds', removed,
        f'that one of {depth} remains')
    lora = record.get('lora')
    _expect(lora is None or isinstance(lora, dict), 'lora', lora,
            'arguments of add_lora')


def _expect(met: bool, key: str, value: Any, expected: str) -> None:
    """Raise unless an expectation of the record is met."""
    if not met:
        raise ValueError(f'The record of the run has {key}='
                         f'{repr(value)[:200]}, expected {expected}.')


def _is_path(value: Any) -> bool:
    """Whether a value is a dotted path, or a list of some."""
    paths = value if isinstance(value, (list, tuple)) else [value]
    return len(paths) > 0 and all(isinstance(p, str) for p in paths)


def _are_ids(value: Any) -> bool:
    """Whether a value is a list of ids."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(i, (int, str)) and not isinstance(i, bool) for i in value)


def removed_ids(record: Dict[str, Any]) -> List[Id]:
    """List what a record says was removed, in that order.

    Args:
        record: The record. A round that was rolled back ('rejected') removes
            nothing.

    Returns:
        Ids of the parts.
    """
    removed = list(record.get('start_dropped', []))
    for entry in record['rounds']:
        if entry.get('state') != 'rejected':
            removed += entry.get('dropped', [])
    return removed


def all_ids(record: Dict[str, Any]) -> List[Id]:
    """List the ids of all parts of the uncompressed model.

    Args:
        record: The record.

    Returns:
        The ids, in the order of the model.
    """
    return list(record.get('ids') or range(record['depth']))


def read_id(text: str, ids: Sequence[Id]) -> Id:
    """Find an id by its text, as JSON has only text for keys.

    Args:
        text: ``str(id)``.
        ids: All ids.

    Returns:
        The id.

    Raises:
        ValueError: There is none.
    """
    for part in ids:
        if str(part) == str(text):
            return part
    raise ValueError(f'The record names {text!r}, expected one of '
                     f'{list(ids)}.')


def structure_class(name: str, key: str = 'kind of the record') -> Any:
    """Find a structure by its registered name.

    Args:
        name: The name, with or without ``mmblockdrop.``.
        key: Config key it comes from.

    Returns:
        The class.

    Raises:
        ValueError: There is none; names those there are.
    """
    plain = isinstance(name, str) and KIND.fullmatch(name)
    found = STRUCTURES.get(name) if plain else None
    if found is None:
        require_choice(key, name, [
            f'mmblockdrop.{kind}' for kind in sorted(STRUCTURES.module_dict)
        ])
    return found


def replay(model: nn.Module, record: Dict[str, Any]) -> List[Id]:
    """Remove from a fresh model what a record says was removed.

    Args:
        model: The uncompressed localizer; or one that has lost some of it
            already, as replaying twice does no harm.
        record: Content of ``blockdrop.json`` or ``meta['blockdrop']``, of any
            version.

    Returns:
        Ids of all removed parts.

    Raises:
        ValueError: The record is damaged, of an unknown kind, or made from a
            model of another size.
    """
    record = upgrade_record(record)
    structure_class(record['kind']).replay(model, record)
    return removed_ids(record)
