"""Our encoders for mmaction2's ``Recognizer3D``."""
import math
import re
from typing import Any, Dict, Optional, Tuple

from mmblockdrop.compression import record_of
from mmblockdrop.utils.checkpoint import State

from .encoder import (PATCHES, block_numbers, expected_shapes, layout_of,
                      suggested_config)
from .files import strip, unwrap
from .report import ConversionReport


def encoder_for_mmaction(
        content: Any,
        source: str = 'checkpoint',
        lora_scale: Optional[float] = None
) -> Tuple[Dict[str, Any], ConversionReport]:
    """Convert the encoder of a localizer into mmaction2's ``Recognizer3D``.

    LoRA is folded in, and blocks are numbered without gaps, as mmaction2
    needs them.

    Args:
        content: Checkpoint of mmblockdrop, of a localizer or an encoder.
        source: File, for the report.
        lora_scale: ``alpha / rank`` of attached LoRA. Defaults to that of the
            record, or else to 1.

    Returns:
        ``state_dict`` and ``meta``; and what became of every key.

    Raises:
        ValueError: It holds no encoder with our names.
    """
    state, _ = unwrap(content, source)
    prefix, title = layout_of(state, source)
    if f'{prefix}{PATCHES}' not in state:
        raise ValueError(f'{source} is not a checkpoint of mmblockdrop: '
                         f'{title}')
    report = ConversionReport(source, title)
    record = record_of(content, source) or {}
    if lora_scale is None:
        lora = record.get('lora') or {}
        alpha = lora.get('alpha') or lora.get('rank') or 1
        lora_scale = alpha / (lora.get('rank') or 1)
    for name in state:
        if not name.startswith(prefix):
            report.left_out[name] = 'not part of the encoder'
    inside = strip({k: v for k, v in state.items() if k.startswith(prefix)},
                   prefix)
    inside = _merge_ours(inside, lora_scale, report)
    left = block_numbers(inside)
    number = {old: new for new, old in enumerate(left)}
    found = {}
    for name, value in inside.items():
        ours = re.sub(r'^blocks\.(\d+)\.',
                      lambda m: f'blocks.{number.get(int(m[1]), m[1])}.', name)
        found[f'backbone.{ours}'] = value
        if f'backbone.{ours}' != prefix + name:
            report.renamed[prefix + name] = f'backbone.{ours}'
    report.dropped = sorted(set(range(left[-1] + 1 if left else 0)) -
                            set(left))
    _check_ours({k.removeprefix('backbone.'): v for k, v in found.items()},
                report)
    report.notes.append(f'set backbone.depth={len(left)}; cls_head keeps its '
                        'initial values')
    return dict(state_dict=found, meta=dict(blocks=left)), report


def _merge_ours(state: State, scale: float,
                report: ConversionReport) -> State:
    """Fold peft's LoRA into the layers that it wraps."""
    merged = {}
    for name, value in state.items():
        if '.lora_' in name:
            continue
        layer, _, part = name.rpartition('.base_layer.')
        if layer:
            a, b = (state.get(f'{layer}.lora_{x}.default.weight')
                    for x in 'AB')
            if part == 'weight' and a is not None and b is not None:
                value = value + scale * (b @ a)
            elif part == 'weight':
                report.missing.append(f'{layer}.lora_A or lora_B')
            name = f'{layer}.{part}'
        merged[name] = value
    if len(merged) != len(state):
        report.notes.append(f'LoRA was merged with alpha / rank = {scale:g}')
    return merged


def _check_ours(state: State, report: ConversionReport) -> None:
    """Compare with the encoder that the weights describe."""
    tokens = state['pos_embed'].shape[1] if 'pos_embed' in state else 0
    cfg = suggested_config(state)
    slices = cfg['num_frames'] // cfg['tubelet_size']
    cfg['img_size'] = math.isqrt(tokens // slices) * cfg['patch_size']
    hidden = state['blocks.0.mlp.layers.0.0.weight'].shape[0]
    expected = expected_shapes(cfg, hidden, any('gamma_' in k for k in state))
    lost = report.missing
    report.compare(expected, state)
    report.missing = sorted([*lost, *report.missing])
