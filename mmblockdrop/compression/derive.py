"""Write the config that compresses the localizer of another config."""
import copy
import os
from pathlib import Path
from pprint import pformat
from typing import (Any, Dict, Iterator, List, Mapping, Optional, Sequence,
                    Tuple, Union)

from mmblockdrop.registry import MODELS
from mmblockdrop.utils.config import (has_classes, localizer_config,
                                      plain_config, type_name)
from mmblockdrop.utils.io import whole_file
from mmblockdrop.utils.meta import empty_weights

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from .blocks import BlockStack, find_stacks
from .spec import BlockSpec, declared_stacks, find_place, spec_of

Paths = Union[str, List[str]]
#: Metric that chooses epochs and blocks, by type of evaluator.
METRICS = dict(
    TADMetric='tad/mAP',
    CurveMetric='curve/mAP',
    AccMetric='acc/top1',
    ANetMetric='auc')
#: Arguments of alignments that are paths in the localizer.
PATHS = ('module', 'mask', 'head')

TEMPLATE = '''\
# Compresses {config}
# Written by tools/compress.py; to run it again:
#   python tools/train.py {own}
# and to go on after an interruption:
#   python tools/train.py {own} --resume
{base}
custom_imports = dict(
    imports={imports!r}, allow_failed_imports=False)
epochs_per_round = {epochs}
model = dict(
    {delete}type='mmblockdrop.TeacherStudentWrapper',
    localizer={localizer},
    checkpoint={checkpoint!r}{wrapper})
train_cfg = dict(
    {delete}type='mmblockdrop.DistillationLoop',
    epochs_per_round=epochs_per_round,
    metric={metric!r},
    scorer={scorer!r}{loop})
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


def compression_config(config: str,
                       checkpoint: str,
                       target: Path,
                       loop: Mapping[str, Any],
                       blocks: Optional[Sequence[str]] = None,
                       metric: Optional[str] = None,
                       epochs: int = 3) -> str:
    """Write a block-drop config for a localizer, as text.

    Where the given config is text, it is inherited; its content is copied if
    its types are classes, as mmengine lets no text inherit from those.

    Args:
        config: Config that trains the localizer.
        checkpoint: The trained localizer.
        target: Where the text will stand.
        loop: Further arguments of ``DistillationLoop``. Its ``scorer``
            defaults to the metric.
        blocks: Paths of the stack. Defaults to None, what the classes of the
            model declare, or else the longest stack.
        metric: Metric of the evaluator. Defaults to None, the one that belongs
            to its type.
        epochs: Epochs of alignment per round.

    Returns:
        The config.

    Raises:
        ValueError: The config lacks something; says which option helps.
    """
    cfg = Config.fromfile(config)
    if type_name(cfg.get('train_cfg')) == 'DistillationLoop':
        raise ValueError(
            f'{config} compresses already: run it with tools/train.py, or '
            'give the config that trains the localizer')
    metric = metric or find_metric(cfg, config)
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    model = _build_empty(localizer_config(cfg))
    stack = _unlisted(blocks) if blocks else find_blocks(model)
    BlockStack(model, stack)  # raises where a path does not exist
    inherits = not has_classes(dict(cfg.items()))
    base = f'_base_ = {os.path.relpath(config, target.parent)!r}'
    if not inherits:  # the classes are entries of their own
        content = {k: v for k, v in cfg.items() if not callable(v)}
        base = Config(plain_config(content)).pretty_text
    start = '_base_.' if inherits else ''
    scorer = loop.get('scorer') or dict(
        type='mmblockdrop.MetricScorer', metric=metric)
    extra = ''.join(f',\n    {k}={v!r}' for k, v in loop.items()
                    if k != 'scorer')
    if 'score_dataloader' in cfg:
        extra += f',\n    score_dataloader={start}score_dataloader'
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    hooks = [plain_config(h) for h in cfg.get('custom_hooks') or []]
    hooks.append(dict(type='mmblockdrop.BlockDropHook', stack=stack))
    return TEMPLATE.format(
        config=config,
        own=target,
        base=base,
        imports=imports + ['mmblockdrop'] * ('mmblockdrop' not in imports),
        epochs=epochs,
        scorer=scorer,
        delete='_delete_=True,\n    ' if inherits else '',
        localizer=f'{start}model',
        checkpoint=os.path.abspath(checkpoint)
        if '://' not in checkpoint else checkpoint,
        wrapper=_wrapper_lines(model, stack),
        metric=metric,
        loop=extra,
        hooks=pformat(hooks, sort_dicts=False, width=76))


def write_once(text: str, target: Path, overwrite: bool) -> None:
    """Write a config, but not over one that its owner may have changed.

    Args:
        text: The config.
        target: The file; its folder is made if need be.
        overwrite: Replace another content too.

    Raises:
        ValueError: The file exists with another content.
    """
    if target.exists() and not overwrite:
        if target.read_text() == text:
            return
        raise ValueError(
            f'{target} exists and differs from what would be written now: '
            'run it with tools/train.py, replace it with --overwrite, or '
            'choose another --work-dir')
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        temporary.write_text(text)


def _build_empty(model_cfg: dict) -> nn.Module:
    """Build a model to look at, without values where its class allows."""
    try:
        with empty_weights():
            return MODELS.build(copy.deepcopy(model_cfg))
    except (NotImplementedError, RuntimeError):  # reads its own weights
        return MODELS.build(copy.deepcopy(model_cfg))


def find_metric(cfg: Config, config: str) -> str:
    """Find the metric that a config's validation goes by.

    Args:
        cfg: A whole config.
        config: Its file, for the error.

    Returns:
        Key of the metric.

    Raises:
        ValueError: There is no validation, or its metrics are not known.
    """
    found = cfg.get('val_evaluator')
    if not found or not cfg.get('val_dataloader') or cfg.get(
            'val_cfg') is None:
        raise ValueError(
            f'{config} has no validation, which chooses blocks and epochs: '
            'it needs val_dataloader, val_evaluator and val_cfg')
    evaluators = found if isinstance(found, (list, tuple)) else [found]
    for evaluator in evaluators:
        name = METRICS.get(type_name(evaluator))
        prefix = evaluator.get('prefix')
        if name is not None:
            return f'{prefix}/{name.split("/")[-1]}' if prefix else name
    kinds = ', '.join(map(type_name, evaluators))
    raise ValueError(
        f'val_evaluator of {config} is {kinds}, whose metrics are not known '
        f'here, expected one of {sorted(METRICS)}: name the metric to go by '
        'with --metric')


def find_blocks(model: nn.Module) -> Paths:
    """Find the stack to shorten.

    Stacks of the encoder come first, and of these what their class declares.
    A class that declares nothing is looked through for its longest stack, and
    others of the same kind of block, as the stages of a ResNet, are taken
    together with it. Blocks that cannot go are found by the run.

    Args:
        model: The localizer.

    Returns:
        Dotted path or paths.

    Raises:
        ValueError: There is none.
    """
    declared, stacks = declared_stacks(model), find_stacks(model)
    for start in ('backbone.', ''):
        found = [path for path in declared if path.startswith(start)]
        if found:
            return _unlisted(found)
        found = [path for path in stacks if path.startswith(start)]
        if found:
            return _unlisted(_longest(model, {p: stacks[p] for p in found}))
    raise ValueError(
        f'{type(model).__name__} has no stack of blocks: name layers that '
        'return what they are given with --blocks PATH [PATH ...]')


def _longest(model: nn.Module, stacks: Dict[str, int]) -> List[str]:
    """The longest stack, and those of its kind that lie in none of them."""
    kinds = {
        path: type(next(iter(model.get_submodule(path).children())))
        for path in stacks
    }
    longest = max(stacks, key=lambda p: stacks[p])
    alike = [p for p in stacks if kinds[p] is kinds[longest]]
    return [
        p for p in alike if not any(p.startswith(f'{q}.') for q in alike)
    ]


def _unlisted(paths: Sequence[str]) -> Paths:
    """One path as it is, several as a list."""
    return paths[0] if len(paths) == 1 else list(paths)


def find_alignments(model: nn.Module, stack: Paths) -> Dict[str, dict]:
    """Find what to align with the teacher, for the localizer at hand.

    Args:
        model: The localizer.
        stack: Paths of the stack.

    Returns:
        Name to config. The outputs of blocks, unless they are single layers of
        a localizer, and the predictions that localizers declare.
    """
    found: Dict[str, dict] = {}
    paths = [stack] if isinstance(stack, str) else stack
    places = [find_place(model, path) for path in paths]
    if not all(place and place.spec.alignments for place in places):
        found['block'] = dict(type='mmblockdrop.BlockAlignment', stack=stack)
    for _, declared in _predictions(model):
        found.update(declared)
    return found


def _predictions(
        model: nn.Module) -> Iterator[Tuple[BlockSpec, Dict[str, dict]]]:
    """Alignments that classes declare, of predictions that exist."""
    modules = dict(model.named_modules())
    for prefix, module in modules.items():
        spec = spec_of(module)
        found = {}
        for name, cfg in (spec.alignments if spec else {}).items():
            paths = {
                key: f'{prefix}.{cfg[key]}'.lstrip('.')
                for key in PATHS if key in cfg
            }
            if paths.get('module', prefix) in modules:
                found[name] = {**cfg, **paths}
        if spec and found:
            yield spec, found


def _wrapper_lines(model: nn.Module, stack: Paths) -> str:
    """Arguments of the ``TeacherStudentWrapper``."""
    lines = ',\n    alignments=dict('
    for name, cfg in find_alignments(model, stack).items():
        pairs = ', '.join(f'{k}={_literal(v)}' for k, v in cfg.items())
        lines += f'\n        {name}=dict({pairs}),'
    lines = lines.rstrip(',') + ')'
    for spec, _ in _predictions(model):
        if spec.teacher_mode is not None:
            lines += f',\n    teacher_mode={spec.teacher_mode!r}'
    return lines


def _literal(value: Any) -> str:
    """Python text of a value, mappings as calls of ``dict``."""
    if isinstance(value, Mapping):
        pairs = (f'{k}={_literal(v)}' for k, v in value.items())
        return f'dict({", ".join(pairs)})'
    return repr(value)
