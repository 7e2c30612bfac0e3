"""Write the config that compresses the localizer of another config."""
import copy
import os
from pathlib import Path
from pprint import pformat
from typing import Any, Dict, List, Optional, Sequence, Union

from mmblockdrop.compression import BlockStack, find_stacks
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.config import localizer_config
from mmblockdrop.utils.meta import empty_weights

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

Paths = Union[str, List[str]]
#: Metric that chooses epochs and blocks, by type of evaluator.
METRICS = dict(
    TADMetric='tad/mAP', CurveMetric='curve/mAP', AccMetric='acc/top1',
    ANetMetric='auc')
AGREE = dict(type='mmblockdrop.BinaryKLLoss')
#: What the localizers of mmaction2 predict, by module.
PREDICTIONS = dict(
    BMN=dict(
        confidence=dict(module='x_2d_p', mask='bm_mask', loss=AGREE),
        start=dict(module='x_1d_s', loss=AGREE),
        end=dict(module='x_1d_e', loss=AGREE)),
    TEM=dict(
        curves=dict(
            module='conv3', loss=dict(AGREE, logits=True, scale=0.01))),
    TCANet=dict(
        iou=dict(module='tbr1', index=0, loss=AGREE),
        segments=dict(
            module='tbr1', index=1, loss=dict(type='mmblockdrop.GIoULoss'))))
#: Layers of these that may go, as they have no stack of blocks.
LAYERS = dict(
    BMN=[
        'x_1d_b.2', 'x_1d_s.0', 'x_1d_e.0', 'x_1d_p.0', 'x_2d_p.2', 'x_2d_p.4'
    ],
    TEM=['conv1', 'conv2'],
    TCANet=['x_1d_b_f.2', 'lgtes'])
#: Localizers that predict on the way to the loss only.
LOSS_ONLY = ('TCANet', )

TEMPLATE = '''\
# Compresses {config}
# Written by tools/compress.py; to run it again:
#   python tools/train.py {own}{resume}
_base_ = {base!r}
custom_imports = dict(
    imports={imports!r}, allow_failed_imports=False)
epochs_per_round = {epochs}
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint={checkpoint!r}{wrapper})
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    epochs_per_round=epochs_per_round,
    metric={metric!r},
    scorer=dict(type='mmblockdrop.MetricScorer', metric={metric!r}){loop})
custom_hooks = {hooks}
# One round, not the whole run.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=epochs_per_round,
        eta_min_ratio=0.01,
        convert_to_iter_based=True)
]
load_from = None
resume = False
'''


def derived_config(config: str, checkpoint: str, target: Path,
                   blocks: Optional[Sequence[str]], metric: Optional[str],
                   epochs: int, lora: Optional[int],
                   loop: Dict[str, Any]) -> str:
    """Text of a block-drop config that inherits from another.

    Args:
        config: Config that trains the localizer.
        checkpoint: The trained localizer.
        target: Where the text will stand.
        blocks: Paths of the stack; None looks for it.
        metric: Metric of the evaluator; None takes the one that belongs to its
            type.
        epochs: Epochs of alignment per round.
        lora: Rank of LoRA; None trains the weights.
        loop: Further arguments of ``DistillationLoop``.

    Returns:
        The config.

    Raises:
        ValueError: The config lacks something; says which option helps.
    """
    cfg = Config.fromfile(config)
    if 'DistillationLoop' in str((cfg.get('train_cfg') or {}).get('type')):
        raise ValueError(
            f'{config} compresses already: run it with tools/train.py, or '
            'give the config that trains the localizer')
    metric = metric or find_metric(cfg, config)
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    model = build_empty(localizer_config(cfg))
    stack = unlisted(blocks) if blocks else find_blocks(model)
    BlockStack(model, stack)  # refuses paths that are not there
    loop = dict(loop)
    if lora:
        loop['lora'] = dict(rank=lora)
    extra = ''.join(f',\n    {k}={v!r}' for k, v in loop.items())
    if 'score_dataloader' in cfg:
        extra += ',\n    score_dataloader=_base_.score_dataloader'
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    hooks = [_plain(h) for h in cfg.get('custom_hooks') or []]
    hooks.append(dict(type='mmblockdrop.BlockDropHook', stack=stack))
    return TEMPLATE.format(
        config=config,
        own=target,
        resume=' --resume  (goes on after an interruption)',
        base=os.path.relpath(config, target.parent),
        imports=imports + ['mmblockdrop'] * ('mmblockdrop' not in imports),
        epochs=epochs,
        checkpoint=os.path.abspath(checkpoint)
        if '://' not in checkpoint else checkpoint,
        wrapper=_wrapper_lines(model, stack),
        metric=metric,
        loop=extra,
        hooks=pformat(hooks, sort_dicts=False, width=76))


def build_empty(model_cfg: dict) -> nn.Module:
    """Build a model to look at; without values where its class allows.

    Args:
        model_cfg: Its config.

    Returns:
        The model.
    """
    try:
        with empty_weights():
            return MODELS.build(copy.deepcopy(model_cfg))
    except (NotImplementedError, RuntimeError):  # reads its own weights
        return MODELS.build(copy.deepcopy(model_cfg))


def find_metric(cfg: Config, config: str) -> str:
    """Metric of a config's validation.

    Args:
        cfg: A whole config.
        config: Its file, for the error.

    Returns:
        Key.

    Raises:
        ValueError: There is no validation, or its metrics are not known.
    """
    found = cfg.get('val_evaluator')
    if not found or not cfg.get('val_dataloader') or cfg.get(
            'val_cfg') is None:
        raise ValueError(
            f'{config} has no validation, which chooses blocks and epochs: '
            'it needs val_dataloader, val_evaluator and val_cfg')
    for evaluator in found if isinstance(found, (list, tuple)) else [found]:
        kind = str(evaluator.get('type')).rsplit('.', 1)[-1]
        prefix = evaluator.get('prefix')
        if kind in METRICS:
            name = METRICS[kind]
            return f'{prefix}/{name.split("/")[-1]}' if prefix else name
    raise ValueError(
        f'val_evaluator of {config} is a {kind}, whose metrics are not '
        'known here: name the one to go by with --metric')


def find_blocks(model: nn.Module) -> Paths:
    """The stack to shorten: the longest, with its like beside it.

    Stacks of the encoder come first. Where an encoder has several stacks of
    the same kind of block, as the stages of a ResNet, they are taken
    together; blocks that cannot go are found by the run.

    Args:
        model: The localizer.

    Returns:
        Dotted path or paths.

    Raises:
        ValueError: There is none.
    """
    stacks = find_stacks(model)
    inside = {p: n for p, n in stacks.items() if p.startswith('backbone')}
    stacks = inside or stacks
    if type(model).__name__ in LAYERS:
        return list(LAYERS[type(model).__name__])
    if not stacks:
        raise ValueError(
            f'{type(model).__name__} has no stack of blocks: name layers '
            'that return what they are given with --blocks PATH [PATH ...]')
    longest = max(stacks, key=lambda p: stacks[p])
    kind = _kind(model, longest)
    alike = [
        p for p in stacks if _kind(model, p) == kind and not any(
            p.startswith(f'{q}.') for q in stacks if _kind(model, q) == kind)
    ]
    return unlisted(alike)


def _kind(model: nn.Module, path: str) -> str:
    return type(next(iter(model.get_submodule(path)))).__name__


def unlisted(paths: Sequence[str]) -> Paths:
    """One path as it is, several as a list."""
    return paths[0] if len(paths) == 1 else list(paths)


def find_alignments(model: nn.Module, stack: Paths) -> Dict[str, dict]:
    """What to hold against the teacher, for the localizer at hand.

    Args:
        model: The localizer.
        stack: Paths of the stack.

    Returns:
        Name to config. The outputs of blocks, and the predictions of
        localizers that are known.
    """
    found = {}
    if stack != LAYERS.get(type(model).__name__):
        found['block'] = dict(type='mmblockdrop.BlockAlignment', stack=stack)
    prefix, inner = '', model
    if hasattr(model, 'localizer'):  # an encoder in front of a localizer
        prefix, inner = 'localizer.', model.localizer
    kind = type(inner).__name__
    if kind == 'ActionFormer':
        head = f'{prefix}head'
        found['cls'] = dict(type='mmblockdrop.ClassAlignment', head=head)
        found['seg'] = dict(type='mmblockdrop.SegmentAlignment', head=head)
    for name, cfg in PREDICTIONS.get(kind, {}).items():
        paths = {k: prefix + cfg[k] for k in ('module', 'mask') if k in cfg}
        found[name] = dict(
            dict(type='mmblockdrop.ModuleAlignment'), **{**cfg, **paths})
    if getattr(model, 'with_cls_head', False):
        found['cls'] = dict(
            type='mmblockdrop.ModuleAlignment',
            module='cls_head',
            loss=dict(type='mmblockdrop.ClassKLLoss'))
    return found


def _wrapper_lines(model: nn.Module, stack: Paths) -> str:
    lines = ',\n    alignments=dict('
    for name, cfg in find_alignments(model, stack).items():
        pairs = ', '.join(f'{k}={_literal(v)}' for k, v in cfg.items())
        lines += f'\n        {name}=dict({pairs}),'
    lines = lines.rstrip(',') + ')'
    inner = getattr(model, 'localizer', model)
    if getattr(model, 'with_cls_head',
               False) or type(inner).__name__ in LOSS_ONLY:
        # The teacher predicts on the way to the loss only.
        lines += ",\n    teacher_mode='loss'"
    return lines


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return 'dict(' + ', '.join(f'{k}={_literal(v)}'
                                   for k, v in value.items()) + ')'
    return repr(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return value
