"""What of a config is mmaction2's own, and what is ours."""
import copy
from typing import Any, Dict, Iterator, List, Tuple

from mmengine.config import Config, ConfigDict

OURS = 'mmblockdrop'
#: Arguments of ours that mmaction2's ``VisionTransformer`` lacks.
EXTRA = ('drop_blocks', 'lora', 'stem', 'shifted_windows', 'with_cp')
#: Parts of a config that test a model.
TESTING = ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader',
           'test_cfg', 'test_evaluator')
RUNTIME = ('default_scope', 'custom_imports', 'default_hooks', 'env_cfg',
           'log_processor', 'visualizer', 'vis_backends', 'log_level',
           'randomness')


def to_plain_types(value: Any) -> Any:
    """Turn mmengine's config types into dicts and lists, copied.

    Args:
        value: Part of a config.

    Returns:
        The same in plain types; tuples stay tuples.
    """
    if isinstance(value, (dict, ConfigDict)):
        return {k: to_plain_types(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_plain_types(v) for v in value)
    return copy.deepcopy(value)


def with_mmaction_types(cfg: Any) -> Any:
    """Write ``LoRAViT`` as mmaction2's ``VisionTransformer``, where it is.

    The two have the same parameters; LoRA is merged and the dropped blocks
    are renumbered away by then. With a ``stem``, or with windows within its
    clips, it is no such model.

    Args:
        cfg: Config of a model, of plain types; not changed.

    Returns:
        The config without what the export makes superfluous.
    """
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(with_mmaction_types(v) for v in cfg)
    if not isinstance(cfg, dict):
        return cfg
    cfg = {k: with_mmaction_types(v) for k, v in cfg.items()}
    if str(cfg.get('type')).rsplit('.', 1)[-1] not in ('LoRAViT', 'SmallViT'):
        return cfg
    for key in ('drop_blocks', 'lora', 'pretrained', 'init_cfg'):
        cfg.pop(key, None)
    if cfg.get('stem') is None and not cfg.get('shifted_windows'):
        for key in EXTRA:
            cfg.pop(key, None)
        cfg['type'] = 'mmaction.VisionTransformer'
        cfg.setdefault('return_feat_map', True)
    return cfg


def our_types(cfg: Any, place: str = '') -> Iterator[Tuple[str, str]]:
    """Places in a config that need this project.

    Args:
        cfg: Part of a config.
        place: Its own place, to begin with.

    Yields:
        Place and type.
    """
    if isinstance(cfg, dict):
        kind = cfg.get('type')
        if isinstance(kind, str) and kind.split('.')[0] == OURS:
            yield place, kind
        pairs = list(cfg.items())
    elif isinstance(cfg, (list, tuple)):
        pairs = list(enumerate(cfg))
    else:
        return
    for key, value in pairs:
        yield from our_types(value, f'{place}.{key}'.lstrip('.'))


def is_plain(cfg: Any) -> bool:
    """Whether a part of a config builds without this project.

    Args:
        cfg: Part of a config.

    Returns:
        No type in it is ours.
    """
    return not any(True for _ in our_types(cfg))


def standalone(cfg: Config, model: dict) -> Tuple[Config, List[str]]:
    """Config of a model for testing, without inheritance.

    Args:
        cfg: Config that the model comes from.
        model: Config of the model.

    Returns:
        The config, and the entries of ``cfg`` for testing that were left out
        because they need this project while the model does not.
    """
    plain = is_plain(model)
    content: Dict[str, Any] = {}
    for key in RUNTIME:
        if key in cfg:
            content[key] = to_plain_types(cfg[key])
    content['default_scope'] = cfg.get('default_scope') or 'mmaction'
    left_out = []
    for stage in ('val', 'test'):
        keys = [k for k in TESTING if k.startswith(stage) and cfg.get(k)
                is not None]
        part = {k: to_plain_types(cfg[k]) for k in keys}
        if plain and not is_plain(part):
            left_out += keys
        else:
            content.update(part)
    imports = content.pop('custom_imports', None) or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    names = [n for n in names if n.split('.')[0] != OURS]
    if not plain:
        names.insert(0, OURS)
    if names:
        content['custom_imports'] = dict(
            imports=names, allow_failed_imports=False)
    hooks = content.get('default_hooks')
    if plain and hooks and not is_plain(hooks):
        content['default_hooks'] = {
            k: v for k, v in hooks.items() if is_plain(v)
        }
    content['model'] = model
    return Config(content), left_out
