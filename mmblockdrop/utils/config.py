"""Read configs, whether their types are written as text or as classes."""
import copy
from typing import Any, List, Mapping, Sequence, Union

from mmengine.config import Config
from mmengine.logging import print_log

#: Packages whose registered classes are found as ``package.Class``.
SCOPES = ('mmaction', 'mmblockdrop', 'mmcv', 'mmdet', 'mmengine',
          'mmpretrain')
#: Wraps the config of a localizer.
WRAPPER = 'TeacherStudentWrapper'


def type_name(cfg: Any) -> str:
    """Name of the class that a config builds, without its package.

    Args:
        cfg: Config with ``type``: text (``'mmaction.BMN'``), or the class
            itself as in configs of mmengine's new style.

    Returns:
        The name (``'BMN'``); ``''`` for anything without a type.
    """
    kind = cfg.get('type') if isinstance(cfg, Mapping) else None
    if isinstance(kind, str):
        return kind.rpartition('.')[2]
    return getattr(kind, '__name__', '')


def type_text(kind: Any) -> Any:
    """Write a class or function of a config as text.

    Args:
        kind: A value of a config.

    Returns:
        ``'mmaction.BMN'`` for classes of OpenMMLab, the whole dotted path for
        others, which mmengine imports. What is neither a class nor a function
        is returned as it is.
    """
    name = getattr(kind, '__qualname__', None)
    if name is None or not callable(kind):
        return kind
    package = kind.__module__.partition('.')[0]
    return f'{package if package in SCOPES else kind.__module__}.{name}'


def has_classes(value: Any) -> bool:
    """Whether a config holds classes or functions, as of mmengine's new style.

    Args:
        value: A config or a part of one.

    Returns:
        True if there is one, at any depth.
    """
    if isinstance(value, Mapping):
        return any(map(has_classes, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(has_classes, value))
    return type_text(value) is not value


def plain_config(value: Any) -> Any:
    """Turn mmengine's config types into dicts, lists and text, copied.

    Args:
        value: A config or a part of one.

    Returns:
        The same in plain types, classes written as text; tuples stay tuples.
    """
    if isinstance(value, Mapping):
        return {key: plain_config(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_config(entry) for entry in value)
    return copy.deepcopy(type_text(value))


def localizer_config(cfg: Config) -> dict:
    """Config of the localizer, also where teacher and student wrap it.

    Args:
        cfg: A whole config.

    Returns:
        ``model``, or ``model.localizer`` of teacher and student.

    Raises:
        ValueError: The config has no model.
    """
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model; it has {list(cfg)}')
    model = cfg.model
    return model.localizer if type_name(model) == WRAPPER else model


def keep_schedulers(cfg: Config) -> None:
    """Leave out the schedulers that begin after the end of the training.

    A shorter training (``--cfg-options train_cfg.max_epochs=1``) has no place
    for what follows the warm-up, and mmengine gives up on it.

    Args:
        cfg: A whole config; changed.
    """
    train_cfg = cfg.get('train_cfg') or {}
    epochs, iters = (train_cfg.get(k) for k in ('max_epochs', 'max_iters'))
    found = cfg.get('param_scheduler')
    if isinstance(found, (list, tuple)):
        cfg.param_scheduler = schedulers_within(found, epochs, iters)


def schedulers_within(schedulers: Sequence[Any], epochs: Union[int, None],
                      iters: Union[int, None]) -> List[Any]:
    """Schedulers that begin before the end of the training.

    Args:
        schedulers: Configs; anything else stays.
        epochs: Epochs of the training; None if it does not count them.
        iters: Its iterations, likewise.

    Returns:
        Those that begin.
    """
    kept = []
    for scheduler in schedulers:
        begin, end = 0, None
        if isinstance(scheduler, Mapping):
            begin = scheduler.get('begin', 0)
            end = epochs if scheduler.get('by_epoch', True) else iters
        if not end or begin < end:
            kept.append(scheduler)
        else:
            print_log(
                f'{type_name(scheduler)} of param_scheduler begins at {begin} '
                f'and the training ends at {end}: it is left out.', 'current')
    return kept
