"""The record of a run: what was removed, in which round, and why.

It is plain data, in ``blockdrop.json`` and in a checkpoint's
``meta['blockdrop']``. Version 2 adds ``version`` and ``kind``, the registered
name of the structure, to version 1, which knew whole blocks only.
"""
import copy
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


def upgrade_record(record: Dict[str, Any]) -> Dict[str, Any]:
    """Bring a record of any version to the form of today.

    Args:
        record: Content of ``blockdrop.json`` or ``meta['blockdrop']``.

    Returns:
        A copy of version 2.

    Raises:
        ValueError: The version is not known, or a key is missing.
    """
    version = record.get('version', 1)
    if version not in (1, VERSION):
        raise ValueError(f'The record of the run has version={version!r}, '
                         f'expected 1 or {VERSION}: it was written by a newer '
                         'mmblockdrop.')
    missing = [key for key in KEYS if key not in record]
    if missing:
        raise ValueError(f'The record of the run lacks {missing}; it has '
                         f'{sorted(record)}.')
    record = copy.deepcopy(record)
    record.setdefault('kind', 'BlockStack')
    return dict(record, version=VERSION)


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
    found = STRUCTURES.get(name)
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
