"""Detectors of Progressive Block Drop, OpenTAD and AdaTAD.

They name the encoder ``backbone.model.backbone`` and the head ``rpn_head``,
keep LoRA as matrices ``A`` [in, rank] and ``B`` [rank, out] beside the layer,
and apply ``alpha * x A B``. Ours keeps them inside the layer, transposed, and
applies ``alpha / rank``.
"""
import copy
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.compression import BlockStack, add_lora
from mmblockdrop.compression.record import VERSION
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.checkpoint import Shapes, State
from mmblockdrop.utils.meta import empty_weights

import torch

from .files import strip
from .report import ConversionReport

STACK = 'backbone.blocks'
LAYOUT = 'detector of Progressive Block Drop, OpenTAD or AdaTAD'
#: Entry of the checkpoint for each choice of weights.
WEIGHTS = dict(ema='state_dict_ema', live='state_dict')
#: Published names to ours, in this order.
RULES = ((r'^module\.', ''), (r'^backbone\.model\.backbone\.', 'backbone.'),
         (r'^rpn_head\.', 'head.'))
LORA = re.compile(r'attn\.lora_(\w+)\.([AB])$')


def detector_name(name: str, lora: Sequence[str] = ()) -> str:
    """Name of a published parameter in our localizer.

    Args:
        name: Published name.
        lora: Layers of our encoder's attention that carry LoRA, ``('qkv',
            'proj')`` for the published code's.

    Returns:
        Our name.
    """
    for pattern, ours in RULES:
        name = re.sub(pattern, ours, name)
    name = LORA.sub(r'attn.\1.lora_\2.default.weight', name)
    if lora and name.startswith(f'{STACK}.'):
        layers = '|'.join(map(re.escape, lora))
        name = re.sub(rf'\.attn\.({layers})\.(weight|bias)$',
                      r'.attn.\1.base_layer.\2', name)
    return name


def lora_targets(state: State) -> List[str]:
    """Layers that carry LoRA in a published state dict, sorted."""
    found = (LORA.search(name) for name in state)
    return sorted({match[1] for match in found if match})


def rename_detector(state: State) -> State:
    """Convert a published state dict without looking at a config.

    Args:
        state: Published names and values.

    Returns:
        Our names and values.
    """
    lora = lora_targets(state)
    return {
        detector_name(name, lora): _value(name, value)
        for name, value in state.items()
    }


def _value(name: str, value: torch.Tensor) -> torch.Tensor:
    if LORA.search(name):
        return value.t().contiguous()
    if name.endswith('loss_normalizer'):  # an integer at first
        return value.float()
    return value


def merge(state: State, alpha: float = 1.) -> State:
    """Fold published LoRA into the layers, ``W + alpha (A B)^T``.

    Args:
        state: Published names and values.
        alpha: Factor of the published LoRA layers.

    Returns:
        Published names of the model without LoRA.

    Raises:
        ValueError: A or B or the layer of a pair is missing, or a matrix
            holds NaN. The published merge skips such a block.
    """
    merged = {k: v for k, v in state.items() if not LORA.search(k)}
    for stem in sorted({k[:-2] for k in state if LORA.search(k)}):
        layer = stem.replace('.lora_', '.') + '.weight'
        for name in (f'{stem}.A', f'{stem}.B', layer):
            if name not in state:
                raise ValueError(f'LoRA cannot be merged: {name} is missing')
            if not torch.isfinite(state[name]).all():
                raise ValueError(f'LoRA cannot be merged: {name} holds NaN '
                                 'or infinite values')
        update = state[f'{stem}.A'] @ state[f'{stem}.B']
        merged[layer] = state[layer] + alpha * update.t()
    return merged


def refuse_adapters(state: State, source: str) -> None:
    """Reject a detector whose function we cannot compute.

    Args:
        state: Published names.
        source: File, for errors.

    Raises:
        ValueError: The encoder carries AdaTAD's adapters; names them.
    """
    adapters = [name for name in state if '.adapter.' in name]
    if adapters:
        blocks = sorted(
            {int(i)
             for i in re.findall(r'blocks\.(\d+)\.adapter', ' '.join(adapters))
             })
        raise ValueError(
            f"{source} carries {len(adapters)} keys of AdaTAD's "
            f'temporal-informative adapters ({adapters[0]}, ...) in blocks '
            f'{blocks}. mmblockdrop has no such layer, and without it the '
            'encoder computes something else, so nothing is converted. '
            'Detectors without adapters (fully fine-tuned, or with LoRA) are.')


def choose_weights(content: Dict[str, Any], weights: Optional[str],
                   source: str) -> Tuple[State, str]:
    """Pick the live or the averaged weights of a published checkpoint.

    Args:
        content: The checkpoint.
        weights: 'ema' or 'live'; None for the averaged ones if there are any,
            which the published code evaluates.
        source: File, for errors.

    Returns:
        State dict without ``module.``, and the choice.

    Raises:
        ValueError: The checkpoint does not hold them.
    """
    if not isinstance(content, dict):
        raise ValueError(f'{source} holds no weights: it is a '
                         f'{type(content).__name__}')
    there = [k for k, entry in WEIGHTS.items() if entry in content]
    if not there and all(
            isinstance(v, torch.Tensor) for v in content.values()):
        content, there = {WEIGHTS['live']: content}, ['live']
    if not there or weights not in (None, *there):
        raise ValueError(
            f'{source} holds the weights {there}, expected '
            f'{weights or list(WEIGHTS)}; its entries are '
            f'{list(content)[:8]}')
    weights = weights or there[0]
    return strip(content[WEIGHTS[weights]], 'module.'), weights


def convert_detector(
        content: Dict[str, Any],
        model: Dict[str, Any],
        source: str = 'checkpoint',
        weights: Optional[str] = None,
        merge_lora: bool = False,
        alpha: float = 1.) -> Tuple[Dict[str, Any], ConversionReport]:
    """Convert a published detector into one of mmblockdrop.

    Blocks of which the file holds no key count as dropped, and the result
    says so in its record. LoRA stays attached unless ``merge_lora``.

    Args:
        content: The published checkpoint.
        model: Config of the localizer, whole, with LoRA or not.
        source: File, for the report.
        weights: See :func:`choose_weights`.
        merge_lora: Fold LoRA into the layers.
        alpha: Factor of the published LoRA layers, which the file does not
            hold. Defaults to 1, as in the published code.

    Returns:
        ``state_dict`` and ``meta``; and what became of every key. Call
        ``report.check()`` before using it.

    Raises:
        ValueError: Adapters, weights that are not there, LoRA of another
            rank than the config's, or LoRA that cannot be merged.
    """
    state, weights = choose_weights(content, weights, source)
    refuse_adapters(state, source)
    targets = lora_targets(state)
    if merge_lora and targets:
        state, targets = merge(state, alpha), []
    report = ConversionReport(source, f'{LAYOUT}, {weights} weights')
    lora = _lora_config(model, state, targets, alpha, source)
    expected, record = _expected(model, lora, state)
    gaps = record['start_dropped']
    found = {}
    for name, value in state.items():
        ours = detector_name(name, targets)
        if ours != name:
            report.renamed[name] = ours
        found[ours] = _value(name, value)
        if lora and '.lora_B.' in ours:
            scale = lora['alpha'] / lora['rank']
            found[ours] = found[ours] * (alpha / scale) if (
                alpha != scale) else found[ours]
    report.dropped = gaps
    report.compare(expected, found)
    meta: Dict[str, Any] = dict(converted_from=LAYOUT, weights=weights)
    if 'epoch' in content:
        meta['published_epoch'] = content['epoch']
    if gaps or lora:
        meta['blockdrop'] = record
    if lora:
        meta['blockdrop']['lora'] = lora
        report.notes.append(f'LoRA of rank {lora["rank"]} stays attached to '
                            f'{targets}')
    return dict(state_dict=found, meta=meta), report


def _lora_config(model: Dict[str, Any], state: State, targets: List[str],
                 alpha: float, source: str) -> Optional[Dict[str, Any]]:
    """LoRA of the config, completed; or what the file says."""
    if not targets:
        return None
    ranks = sorted({v.shape[1] for k, v in state.items() if k.endswith('.A')})
    given = model['backbone'].get('lora')
    if len(ranks) != 1 or given and given['rank'] != ranks[0]:
        raise ValueError(
            f'{source} carries LoRA of rank {ranks}, but the config says '
            f'backbone.lora={given}; set rank={ranks[0]}, or merge LoRA')
    if given is None:
        return dict(rank=ranks[0], alpha=alpha * ranks[0], targets=targets)
    given = dict(given)
    if given.get('alpha') is None:
        given['alpha'] = given['rank']
    return dict(given, targets=list(given.get('targets', ('qkv', 'proj'))))


def _expected(model: Dict[str, Any], lora: Optional[Dict[str, Any]],
              state: State) -> Tuple[Shapes, Dict[str, Any]]:
    """Names and shapes of our model, and the record of the file's gaps."""
    cfg = copy.deepcopy(dict(model))
    cfg['backbone'] = dict(cfg['backbone'], lora=None, drop_blocks=[])
    cfg['backbone'].pop('pretrained', None)
    cfg['backbone'].pop('trainable', None)
    with empty_weights():
        localizer = MODELS.build(cfg)
        stack = BlockStack(localizer, STACK)
        there = {
            int(match[1])
            for match in (re.match(rf'{re.escape(STACK)}\.(\d+)\.',
                                   detector_name(name)) for name in state)
            if match
        }
        gaps = [i for i in range(len(stack)) if i not in there]
        if len(gaps) < len(stack):
            for index in gaps:
                stack.remove(index)
        else:  # nothing of the encoder: every key is missing
            gaps = []
        if lora is not None:
            add_lora(localizer.backbone, **lora)
    shapes = {k: v.shape for k, v in localizer.state_dict().items()}
    record = dict(
        stack.record(),
        version=VERSION,
        load_from=None,
        start_dropped=gaps,
        rounds=[])
    return shapes, record
