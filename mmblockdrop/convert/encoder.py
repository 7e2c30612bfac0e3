"""Video transformers of VideoMAE, VideoMAEv2 and mmaction2.

mmaction2's names are ours. The original releases call the patch projection
``patch_embed.proj`` and the layers of the MLP ``fc1`` and ``fc2``, keep the
fixed sine positions out of the file, and hold, before fine-tuning, the
encoder under ``encoder.`` beside a decoder.
"""
import re
from typing import Any, Dict, List, Tuple

from mmblockdrop.utils.checkpoint import State

import torch
from torch import Tensor

from .files import unwrap
from .report import ConversionReport

PATCHES = 'patch_embed.projection.weight'
#: Marks of a layout: a name in the file, the prefix of the encoder, a title.
LAYOUTS = (
    ('encoder.patch_embed.proj.weight', 'encoder.',
     'VideoMAE before fine-tuning'),
    ('patch_embed.proj.weight', '', 'VideoMAE after fine-tuning'),
    ('backbone.patch_embed.proj.weight', 'backbone.',
     'VideoMAE after fine-tuning'),
    (f'backbone.{PATCHES}', 'backbone.', 'mmaction2 or mmblockdrop'),
    (PATCHES, '', 'encoder of mmaction2 or mmblockdrop'),
)
RULES = ((r'^patch_embed\.proj\.', 'patch_embed.projection.'),
         (r'\.mlp\.fc1\.', '.mlp.layers.0.0.'), (r'\.mlp\.fc2\.',
                                                 '.mlp.layers.1.'))
#: Names with a known purpose that an encoder has no use for.
UNUSED = ((r'^(decoder|mask_token|encoder_to_decoder)\b',
           'reconstructs pixels in pre-training'),
          (r'^(cls_head|head)\.', 'classifies clips'),
          (r'^(projection|neck)\.', 'is not part of the encoder'),
          (r'^(encoder\.)?norm\.',
           'follows the encoder in pre-training; a map of features has no '
           'norm'))
#: Attention heads of the published widths.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}


def layout_of(state: State, source: str) -> Tuple[str, str]:
    """Recognise whose names a state dict has.

    Args:
        state: Names without ``module.``.
        source: File, for errors.

    Returns:
        Prefix of the encoder and title of the layout.

    Raises:
        ValueError: No known layout; says which names there are.
    """
    for mark, prefix, title in LAYOUTS:
        if mark in state:
            return prefix, title
    marks = ', '.join(mark for mark, _, _ in LAYOUTS)
    raise ValueError(f'{source} holds no video transformer that is known: '
                     f'none of {marks} is among its keys '
                     f'{list(state)[:4]}, ...')


def sine_positions(count: int, width: int) -> Tensor:
    """Fixed positions of VideoMAE (Vaswani et al., 2017, section 3.5).

    Args:
        count: Tokens of a clip.
        width: Channels.

    Returns:
        ``[1, count, width]``.
    """
    channel = torch.arange(width, dtype=torch.float64) // 2 * 2
    angle = torch.arange(count, dtype=torch.float64)[:, None] / torch.pow(
        torch.tensor(10000., dtype=torch.float64), channel / width)
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    return angle.float()[None]


def suggested_config(state: State, img_size: int = 224,
                     num_frames: int = 16) -> Dict[str, Any]:
    """Arguments of ``LoRAViT`` that fit an encoder's weights.

    Args:
        state: Our names.
        img_size: Pixels of the frames it was trained on.
        num_frames: Frames of a clip.

    Returns:
        Arguments. ``num_heads`` stands in no file; it is that of the published
        models of this width, or a guess by 64 channels a head.
    """
    width, _, tubelet, patch, _ = state[PATCHES].shape
    hidden = state[f'blocks.{block_numbers(state)[0]}.mlp.layers.0.0.weight']
    ratio = hidden.shape[0] / width
    return dict(
        type='mmblockdrop.LoRAViT',
        img_size=img_size,
        patch_size=patch,
        embed_dims=width,
        depth=block_numbers(state)[-1] + 1,
        num_heads=HEADS.get(width, max(width // 64, 1)),
        mlp_ratio=int(ratio) if ratio.is_integer() else ratio,
        qkv_bias=any(k.endswith('q_bias') for k in state),
        num_frames=num_frames,
        tubelet_size=tubelet,
        norm_cfg=dict(type='LN', eps=1e-6))


def block_numbers(state: State) -> List[int]:
    """Numbers of the blocks of an encoder, sorted."""
    found = (re.match(r'blocks\.(\d+)\.mlp', name) for name in state)
    return sorted({int(match[1]) for match in found if match})


def expected_shapes(cfg: Dict[str, Any], hidden: int,
                    gammas: bool) -> Dict[str, Tuple[int, ...]]:
    """Names and shapes of an encoder.

    Args:
        cfg: See :func:`suggested_config`.
        hidden: Width of the MLP.
        gammas: Whether the branches have learned factors.

    Returns:
        Our names to shapes.
    """
    c, patch, tube = cfg['embed_dims'], cfg['patch_size'], cfg['tubelet_size']
    tokens = (cfg['img_size'] // patch)**2 * (cfg['num_frames'] // tube)
    shapes: Dict[str, Tuple[int, ...]] = {
        'pos_embed': (1, tokens, c),
        PATCHES: (c, 3, tube, patch, patch),
        'patch_embed.projection.bias': (c, ),
        'fc_norm.weight': (c, ),
        'fc_norm.bias': (c, )
    }
    block: Dict[str, Tuple[int, ...]] = {
        'attn.qkv.weight': (3 * c, c),
        'attn.proj.weight': (c, c),
        'attn.proj.bias': (c, ),
        'mlp.layers.0.0.weight': (hidden, c),
        'mlp.layers.0.0.bias': (hidden, ),
        'mlp.layers.1.weight': (c, hidden),
        'mlp.layers.1.bias': (c, )
    }
    vectors = [f'norm{i}.{part}' for i in '12' for part in ('weight', 'bias')]
    vectors += ['attn.q_bias', 'attn.v_bias'] if cfg['qkv_bias'] else []
    vectors += ['gamma_1', 'gamma_2'] if gammas else []
    block.update({name: (c, ) for name in vectors})
    for index in range(cfg['depth']):
        shapes.update(
            {f'blocks.{index}.{name}': size
             for name, size in block.items()})
    return shapes


def convert_encoder(
        content: Any,
        source: str = 'checkpoint',
        img_size: int = 224,
        num_frames: int = 16) -> Tuple[Dict[str, Any], ConversionReport]:
    """Convert a video transformer into weights of ``LoRAViT``.

    Args:
        content: Checkpoint of VideoMAE, VideoMAEv2 or mmaction2.
        source: File, for the report.
        img_size: Pixels of the frames it was trained on, for positions that
            are not in the file.
        num_frames: Frames of a clip, likewise.

    Returns:
        ``state_dict`` and ``meta``, which ``pretrained=`` of ``LoRAViT``
        takes; and what became of every key. Call ``report.check()`` before
        using it.

    Raises:
        ValueError: No known layout, or an encoder without blocks.
    """
    state, wrapper = unwrap(content, source)
    prefix, title = layout_of(state, source)
    under = f' under {wrapper!r}' if wrapper else ''
    report = ConversionReport(source, f'{title}{under}')
    found: State = {}
    for name, value in state.items():
        reason = next((why for pattern, why in UNUSED
                       if re.match(pattern, name)), None)
        ours = name.removeprefix(prefix)
        for pattern, new in RULES:
            ours = re.sub(pattern, new, ours)
        if reason is not None:
            report.left_out[name] = reason
            continue
        if ours != name:
            report.renamed[name] = ours
        found[ours] = value
    if not block_numbers(found):
        raise ValueError(f'{source} ({title}) holds no blocks')
    cfg = suggested_config(found, img_size, num_frames)
    hidden = found[f'blocks.{block_numbers(found)[0]}.mlp.layers.0.0.weight']
    expected = expected_shapes(cfg, hidden.shape[0],
                               any('gamma_' in k for k in found))
    _fill(found, expected, report)
    report.compare(expected, found)
    arguments = ', '.join(f'{k}={v!r}' for k, v in cfg.items())
    report.notes.append(f'backbone=dict({arguments})')
    return dict(state_dict=found, meta=dict(converted_from=title)), report


def _fill(found: State, expected: Dict[str, Tuple[int, ...]],
          report: ConversionReport) -> None:
    """Give values to what the original files leave out."""
    count, width = expected['pos_embed'][1:]
    if 'pos_embed' not in found:
        found['pos_embed'] = sine_positions(count, width)
        report.filled['pos_embed'] = 'fixed sine positions'
    if not any(name.startswith('fc_norm.') for name in found):
        found['fc_norm.weight'] = torch.ones(width)
        found['fc_norm.bias'] = torch.zeros(width)
        for part in ('weight', 'bias'):
            report.filled[f'fc_norm.{part}'] = 'not used by maps of features'
