"""List the blocks of a model that can be removed, by running it once.

    python tools/analysis_tools/list_blocks.py CONFIG
    python tools/analysis_tools/list_blocks.py --backbone MViT
    python tools/analysis_tools/list_blocks.py --table

The first lists the stacks of the model of a config, the second those of one
backbone (a name of the table, or any registered type with ``--shape`` and
``--options``), the third all backbones of the table in the documentation.
Nothing is computed: models of any size run on the meta device.
"""
import argparse
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from mmblockdrop.compression import BlockStack, find_stacks
from mmblockdrop.compression.spec import find_place
from mmblockdrop.export.runtime import input_shape
from mmblockdrop.registry import MODELS
from mmblockdrop.report import markdown_table
from mmblockdrop.utils.config import localizer_config
from mmblockdrop.utils.meta import empty_weights, on_meta

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn


class Preset(NamedTuple):
    """A backbone of the table.

    Attributes:
        what: Its size, in a few words.
        cfg: Config.
        shape: Clips that it takes.
        stack: Paths of its blocks.
    """
    what: str
    cfg: Dict[str, Any]
    shape: Sequence[int]
    stack: List[str]


STAGES = [f'layer{i}' for i in range(1, 5)]
SLOWFAST = dict(
    pretrained=None,
    slow_pathway=dict(
        type='resnet3d', depth=50, pretrained=None, lateral=True,
        conv1_kernel=(1, 7, 7), conv1_stride_t=1, pool1_stride_t=1,
        inflate=(0, 0, 1, 1)),
    fast_pathway=dict(
        type='resnet3d', depth=50, pretrained=None, lateral=False,
        base_channels=8, conv1_kernel=(5, 7, 7), conv1_stride_t=1,
        pool1_stride_t=1))
R2PLUS1D = dict(
    depth=34, pretrained=None, pretrained2d=False,
    conv_cfg=dict(type='Conv2plus1d'), norm_cfg=dict(type='BN3d'),
    conv1_kernel=(3, 7, 7), conv1_stride_t=1, pool1_stride_t=1,
    inflate=(1, 1, 1, 1), spatial_strides=(1, 2, 2, 2),
    temporal_strides=(1, 2, 2, 2))
VIT = dict(img_size=224, patch_size=16, num_frames=16)


def frames(**encoder: Any) -> Dict[str, Any]:
    """Config of an image encoder that runs frame by frame."""
    return dict(type='mmblockdrop.FrameEncoder', encoder=encoder)


PRESETS = {
    'VisionTransformer': Preset(
        'VideoMAE-B', dict(VIT, type='VisionTransformer'),
        (1, 3, 16, 224, 224), ['blocks']),
    'LoRAViT': Preset(
        'VideoMAE-S', dict(VIT, type='mmblockdrop.LoRAViT', embed_dims=384,
                           num_heads=6), (1, 3, 16, 224, 224), ['blocks']),
    'TimeSformer': Preset(
        'base, divided', dict(type='TimeSformer', num_frames=8, img_size=224,
                              patch_size=16), (1, 3, 8, 224, 224),
        ['transformer_layers.layers']),
    'MViT': Preset(
        'small', dict(type='MViT', arch='small'), (1, 3, 16, 224, 224),
        ['blocks']),
    'SwinTransformer3D': Preset(
        'tiny', dict(type='SwinTransformer3D', arch='tiny'),
        (1, 3, 32, 224, 224), [f'layers.{i}.blocks' for i in range(4)]),
    'UniFormer': Preset(
        'small', dict(type='UniFormer', depth=[3, 4, 8, 3]),
        (1, 3, 16, 224, 224), [f'blocks{i}' for i in range(1, 5)]),
    'UniFormerV2': Preset(
        'base', dict(type='UniFormerV2', clip_pretrained=False),
        (1, 3, 8, 224, 224), ['transformer.resblocks', 'transformer.dec']),
    'ResNet3d': Preset(
        'I3D, depth 50', dict(
            type='ResNet3d', depth=50, pretrained=None, conv1_kernel=5,
            inflate=((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0),
                     (0, 1, 0))), (1, 3, 32, 224, 224), STAGES),
    'ResNet3dSlowOnly': Preset(
        'depth 50', dict(type='ResNet3dSlowOnly', depth=50, pretrained=None,
                         lateral=False), (1, 3, 8, 224, 224), STAGES),
    'ResNet2Plus1d': Preset(
        'depth 34', dict(R2PLUS1D, type='ResNet2Plus1d'),
        (1, 3, 8, 112, 112), STAGES),
    'ResNet3dSlowFast': Preset(
        'depth 50', dict(SLOWFAST, type='ResNet3dSlowFast'),
        (1, 3, 32, 224, 224),
        [f'{p}_path.{s}' for p in ('slow', 'fast') for s in STAGES]),
    'X3D': Preset(
        'M', dict(type='X3D', gamma_w=1, gamma_b=2.25, gamma_d=2.2),
        (1, 3, 16, 224, 224), STAGES),
    'mmpretrain.VisionTransformer': Preset(
        'base', frames(type='mmpretrain.VisionTransformer', arch='base',
                       out_type='featmap'), (1, 3, 8, 224, 224),
        ['encoder.layers']),
    'mmpretrain.ConvNeXt': Preset(
        'tiny', frames(type='mmpretrain.ConvNeXt', arch='tiny'),
        (1, 3, 8, 224, 224), [f'encoder.stages.{i}' for i in range(4)]),
    'mmpretrain.ResNet': Preset(
        'depth 50', frames(type='mmpretrain.ResNet', depth=50),
        (1, 3, 8, 224, 224), [f'encoder.{s}' for s in STAGES]),
}


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Defaults to ``sys.argv``.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('config', nargs='?', help='config file')
    which.add_argument(
        '--backbone', metavar='TYPE',
        help=f'a registered type, or one of {", ".join(PRESETS)}')
    which.add_argument(
        '--table', action='store_true', help='all backbones of the table')
    parser.add_argument(
        '--stack', nargs='+', metavar='PATH',
        help='paths to look at (default: every stack that is found)')
    parser.add_argument(
        '--shape', type=int, nargs='+', metavar='N',
        help='shape of the input, as 1 3 16 224 224 for a backbone and '
        '1 1 3 16 224 224 for a model (default: known for the table, and '
        'for localizers from their test data)')
    parser.add_argument(
        '--options', nargs='+', action=DictAction, default={},
        help='arguments of the backbone, or settings of the config to '
        'replace, as key=value')
    return parser.parse_args(argv)


def read_model(args: argparse.Namespace) -> Preset:
    """What the command line asks for.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Config, shape of the input, and stacks if they are given.

    Raises:
        ValueError: The shape of the input is not known.
    """
    if args.config:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.options)
        init_default_scope(cfg.get('default_scope', 'mmaction'))
        model = localizer_config(cfg)
        shape = args.shape or input_shape(cfg, model)
        if shape is None:
            raise ValueError('The config does not tell the shape of the '
                             'input: give --shape, as 1 1 3 16 224 224')
        return Preset('', model, shape, args.stack or [])
    known = PRESETS.get(args.backbone)
    cfg = dict(known.cfg if known else dict(type=args.backbone))
    cfg.update(args.options)
    if not (args.shape or known):
        raise ValueError(f'--backbone {args.backbone} is not in the table: '
                         'give --shape, as 1 3 16 224 224')
    return Preset('', cfg, args.shape or known.shape, args.stack or [])


def probe(preset: Preset) -> List[BlockStack]:
    """Run a model and look at its stacks.

    Args:
        preset: The model; without stacks, all are looked at.

    Returns:
        One for each path.
    """
    with empty_weights():
        model = MODELS.build(preset.cfg)
    model = on_meta(model)
    model.eval()
    inputs = torch.zeros(preset.shape, device='meta')
    stacks = []
    for path in preset.stack or find_stacks(model):
        stack = BlockStack(model, path)
        stack.probe(lambda: _call(model, inputs))
        stacks.append(stack)
    return stacks


def _call(model: nn.Module, inputs: torch.Tensor) -> Any:
    if hasattr(model, 'data_preprocessor'):
        return model(inputs, mode='tensor')
    return model(inputs)


def rows_of(stacks: Sequence[BlockStack]) -> List[Dict[str, str]]:
    """One line for each stack.

    Args:
        stacks: After their probe.

    Returns:
        Text by column.
    """
    places = [find_place(stack.model, stack.names[0]) for stack in stacks]
    return [{
        'stack': f'`{stack.path}`',
        'blocks': str(len(stack)),
        'may go': str(len(stack.candidates())),
        'fixed': '; '.join(f'{i} {why}' for i, why in stack.fixed.items())
        or '-',
        'halves': ', '.join(
            h.branch for h in (place.spec.halves if place else ())) or '-'
    } for stack, place in zip(stacks, places)]


def table_row(name: str, preset: Preset) -> Dict[str, str]:
    """One line of the table of backbones.

    Args:
        name: Key of :data:`PRESETS`.
        preset: The backbone.

    Returns:
        Text by column.
    """
    stacks = probe(preset)
    reasons: Dict[str, List[str]] = {}
    for stack in stacks:
        for index, why in stack.fixed.items():
            why = 'change shape' if why.startswith('turns') else why
            reasons.setdefault(why, []).append(f'`{stack.names[index]}`')
    return {
        'backbone': f'`{name}`',
        'size': preset.what,
        'clip': ' x '.join(map(str, preset.shape[2:])),
        'stack': ', '.join(f'`{path}`' for path in preset.stack),
        'blocks': ' + '.join(str(len(stack)) for stack in stacks),
        'may go': ' + '.join(str(len(stack.candidates())) for stack in stacks),
        'fixed': '; '.join(f'{", ".join(names)}: {why}'
                           for why, names in reasons.items()) or '-'
    }


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the table."""
    args = parse_args(argv)
    init_default_scope('mmaction')
    # UniFormerV2 logs every block that it builds.
    MMLogger.get_current_instance().setLevel('ERROR')
    try:
        if args.table:
            rows = [table_row(*item) for item in PRESETS.items()]
        else:
            rows = rows_of(probe(read_model(args)))
    except (FileNotFoundError, KeyError, ValueError) as error:
        print(f'list_blocks.py: {error}', file=sys.stderr)
        return 1
    print(markdown_table(rows) if rows else 'No stack was found.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
