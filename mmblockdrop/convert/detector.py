"""Detectors of Progressive Block Drop, OpenTAD and AdaTAD, and back.

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
from mmblockdrop.utils.config import type_name
from mmblockdrop.utils.meta import empty_weights

import torch

from .files import strip, unwrap
from .report import ConversionReport

STACK = 'backbone.blocks'
LAYOUT = 'detector of Progressive Block Drop, OpenTAD or AdaTAD'
#: Entry of the checkpoint for each choice of weights.
WEIGHTS = dict(ema='state_dict_ema', live='state_dict')
#: Published names to ours, in this order.
RULES = ((r'^module\.', ''), (r'^backbone\.model\.backbone\.', 'backbone.'),
         (r'^rpn_head\.', 'head.'))
#: Class of the encoders that carry adapters.
ADAPTED = 'AdapterViT'
#: Adapters of a published side network.
SIDE = re.compile(r'^backbone\.ladders\.adapters\.(\d+)\.')
LORA = re.compile(r'attn\.lora_(\w+)\.([AB])$')


def detector_name(name: str,
                  lora: Sequence[str] = (),
                  side: Sequence[int] = ()) -> str:
    """Name of a published parameter in our localizer.

    Args:
        name: Published name.
        lora: Layers of our encoder's attention that carry LoRA, ``('qkv',
            'proj')`` for the published code's.
        side: See :func:`side_blocks`.

    Returns:
        Our name.
    """
    for pattern, ours in RULES:
        name = re.sub(pattern, ours, name)
    found = SIDE.match(name)
    if found and int(found[1]) < len(side):
        rest = name[found.end():]
        name = f'{STACK}.{side[int(found[1])]}.adapter.{rest}'
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


def side_blocks(model: Dict[str, Any]) -> List[int]:
    """Blocks whose adapters are a side network, by the config of a model.

    Published files number these adapters, ours name the block.

    Args:
        model: Config of the localizer.

    Returns:
        Numbers of the blocks; none for any other encoder.
    """
    backbone = model.get('backbone') or {}
    adapters = backbone.get('adapters') or {}
    if not adapters.get('side'):
        return []
    blocks = adapters.get('blocks')
    return list(range(backbone['depth']) if blocks is None else blocks)


def check_adapters(state: State, model: Dict[str, Any], source: str) -> None:
    """Raise if a file has AdaTAD's adapters and the config none.

    Args:
        state: Published names.
        model: Config of the localizer.
        source: File, for errors.

    Raises:
        ValueError: Says which config is needed.
    """
    inside = [name for name in state if '.adapter.' in name]
    beside = [name for name in state if '.ladders.' in name]
    found = inside or beside
    kind = type_name(model.get('backbone'))
    side = bool(side_blocks(model))
    if found and (kind != ADAPTED or side != bool(beside)):
        blocks = sorted({
            int(i)
            for i in re.findall(r'blocks\.(\d+)\.adapter', ' '.join(inside))
        })
        wanted = 'side=True' if beside else f'blocks={blocks}'
        raise ValueError(
            f"{source} carries {len(found)} keys of AdaTAD's adapters "
            f'({found[0]}, ...), but the config has '
            f'backbone.type={kind!r} with adapters.side={side}; expected '
            f"type='mmblockdrop.{ADAPTED}', adapters=dict({wanted})")


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
        ValueError: Adapters that the config does not have, weights that are
            not there, LoRA of another rank than the config's, or LoRA that
            cannot be merged.
    """
    state, weights = choose_weights(content, weights, source)
    check_adapters(state, model, source)
    side = side_blocks(model)
    targets = lora_targets(state)
    if merge_lora and targets:
        state, targets = merge(state, alpha), []
    report = ConversionReport(source, f'{LAYOUT}, {weights} weights')
    lora = _lora_config(model, state, targets, alpha, source)
    expected, record = _expected(model, lora, state)
    gaps = record['start_dropped']
    found = {}
    for name, value in state.items():
        ours = detector_name(name, targets, side)
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


# ----------------------------------------------------------------------- back
def published_name(name: str, side: Sequence[int] = ()) -> str:
    """Name of a parameter of our localizer in OpenTAD.

    Args:
        name: Our name.
        side: See :func:`side_blocks`.

    Returns:
        The published name, without ``module.``.
    """
    found = re.match(rf'{re.escape(STACK)}\.(\d+)\.adapter\.', name)
    if found and int(found[1]) in side:
        rest = name[found.end():]
        name = f'backbone.ladders.adapters.{side.index(int(found[1]))}.{rest}'
    name = re.sub(r'attn\.(\w+)\.lora_([AB])\.default\.weight$',
                  r'attn.lora_\1.\2', name)
    name = re.sub(r'\.base_layer\.(weight|bias)$', r'.\1', name)
    name = re.sub(r'^backbone\.', 'backbone.model.backbone.', name)
    return re.sub(r'^head\.', 'rpn_head.', name)


def detector_for_opentad(
        content: Dict[str, Any],
        model: Dict[str, Any],
        source: str = 'checkpoint') -> Tuple[Dict[str, Any], ConversionReport]:
    """Convert a localizer of ours into a checkpoint of OpenTAD.

    Blocks that were dropped are absent; LoRA stays attached.

    Args:
        content: Our checkpoint.
        model: Config of the localizer, whole.
        source: File, for the report.

    Returns:
        ``state_dict`` and ``state_dict_ema`` with the same weights, under
        names with and without ``module.``; and what became of every key. Call
        ``report.check()`` before using it.

    Raises:
        ValueError: It holds no weights.
    """
    state, _ = unwrap(content, source)
    report = ConversionReport(source, 'detector of mmblockdrop')
    lora = (content.get('meta', {}).get('blockdrop') or {}).get('lora')
    shapes, record = _expected(model, lora, state)
    report.dropped = record['start_dropped']
    report.compare(shapes, state)
    side = side_blocks(model)
    found = {}
    for name, value in state.items():
        theirs = published_name(name, side)
        if theirs != name:
            report.renamed[name] = theirs
        if LORA.search(theirs):
            value = value.t().contiguous()
            if lora and theirs.endswith('.B'):
                alpha = lora.get('alpha') or lora['rank']
                value = value * (alpha / lora['rank'])
        found[theirs] = value
    live = {f'module.{name}': value for name, value in found.items()}
    return dict(state_dict=live, state_dict_ema=found, epoch=0), report
