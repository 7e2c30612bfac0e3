"""From config and checkpoint to a localizer that is ready for use."""
import difflib
import logging
from pathlib import Path
from typing import Callable, Optional, Union

from mmblockdrop.registry import MODELS

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

WRAPPER = 'TeacherStudentWrapper'
Prepare = Callable[[nn.Module, dict], None]


def localizer_config(cfg: Config) -> dict:
    """Config of the localizer, also from a config that wraps it.

    Args:
        cfg: A whole config.

    Returns:
        ``model``, or ``model.localizer`` of a teacher and student.

    Raises:
        ValueError: If the config has no model.
    """
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model; it has {list(cfg)}')
    model = cfg.model
    if str(model.get('type')).rsplit('.', 1)[-1] == WRAPPER:
        model = model.localizer
    return model


def build_localizer(config: Union[str, Config],
                   checkpoint: Optional[str],
                   device: Union[str, torch.device, None] = None,
                   prepare: Optional[Prepare] = None) -> nn.Module:
    """Build a localizer and load its weights.

    Args:
        config: Config that trains or tests it.
        checkpoint: Its weights. None keeps random ones.
        device: Defaults to the GPU if there is one.
        prepare: Called with the model and the content of the checkpoint before
            the weights are loaded; see
            :func:`mmblockdrop.apis.init_localizer`, which drops the blocks
            that a compressed checkpoint lacks.

    Returns:
        The localizer in evaluation mode, with ``cfg`` and ``dataset_meta`` as
        attributes.

    Raises:
        FileNotFoundError: If config or checkpoint does not exist.
        ValueError: If the checkpoint is damaged or does not fit.
    """
    if not isinstance(config, Config):
        require_file(config, 'config')
        config = Config.fromfile(config)
    init_default_scope(config.get('default_scope', 'mmaction'))
    model_cfg = localizer_config(config)
    if isinstance(model_cfg.get('backbone'), dict):
        model_cfg.backbone.pop('pretrained', None)
    model = MODELS.build(model_cfg)
    meta: dict = {}
    if checkpoint is not None:
        content = _read_checkpoint(checkpoint)
        if prepare is not None:
            prepare(model, content)
        _load_strictly(model, content, checkpoint)
        meta = content.get('meta', {}).get('dataset_meta') or {}
    model.cfg = config
    model.dataset_meta = meta or _meta_of_config(config)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def require_file(path: Union[str, Path], what: str) -> None:
    """Refuse a file that does not exist.

    Args:
        path: The file.
        what: What it is for, to begin the message with.

    Raises:
        FileNotFoundError: With the nearest name that there is.
    """
    path = Path(path)
    if path.is_file():
        return
    there = [p.name for p in path.parent.iterdir()] if (
        path.parent.is_dir()) else []
    near = difflib.get_close_matches(path.name, there, 1)
    hint = f'; did you mean {path.parent / near[0]}?' if near else ''
    raise FileNotFoundError(f'{what}: there is no file {path}{hint}')


def _read_checkpoint(path: str) -> dict:
    if '://' not in str(path):
        require_file(path, 'checkpoint')
    try:
        return _load_checkpoint(str(path), map_location='cpu')
    except Exception as error:
        raise ValueError(f'checkpoint {path} cannot be read: '
                         f'{last_line(error)}') from error


def _load_strictly(model: nn.Module, content: dict, path: str) -> None:
    state = content.get('state_dict', content)
    state = {k[7:] if k.startswith('module.') else k: v
             for k, v in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        recorded = 'has a' if 'blockdrop' in content.get('meta',
                                                         {}) else 'has no'
        raise ValueError(
            f'checkpoint {path} does not fit the localizer of the config (it '
            f'{recorded} record of dropped blocks). {error}') from error


def _meta_of_config(cfg: Config) -> dict:
    """Class names as far as the config's data set can give them."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    classes = dataset.get('classes')
    if isinstance(classes, str):
        path = Path(dataset.get('data_root', '')) / classes
        classes = None
        if path.is_file() and path.suffix == '.txt':
            classes = [x.strip() for x in path.read_text().splitlines()
                       if x.strip()]
    if classes is None:
        print_log(
            'The names of the classes are neither in the checkpoint nor in '
            'the config; numbers are shown instead.',
            logger='current',
            level=logging.WARNING)
        return {}
    return dict(classes=list(classes))


def last_line(error: Exception) -> str:
    """What an error says in the end.

    Args:
        error: The error.

    Returns:
        One line.
    """
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
