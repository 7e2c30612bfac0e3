"""Parameters and multiply-accumulates of a localizer, block by block.

    python tools/analysis_tools/complexity.py CONFIG --drop 4

Two countings stand side by side. *Everything* counts every
multiply-accumulate. *Paper* is the counting of the Progressive Block Drop
paper, which leaves out the FFN, the patch embedding and the attention
products. Nothing is computed: models of any size are counted in seconds.
"""
import argparse
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from mmblockdrop.compression import BlockStack, merge_lora
from mmblockdrop.export.runtime import input_shape
from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity, latency_ms, markdown_table
from mmblockdrop.report.complexity import Part
from mmblockdrop.utils.config import localizer_config
from mmblockdrop.utils.messages import require_file
from mmblockdrop.utils.meta import empty_weights

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

#: Columns, and the children of the localizer that they sum up.
COLUMNS = dict(encoder=('backbone', ), neck=('projection', 'neck'),
               head=('head', ))


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        '--drop', type=int, default=0, metavar='K',
        help='also without the last block, the last two, ... the last K')
    which.add_argument(
        '--drop-blocks', type=int, nargs='+', metavar='I',
        help='also without these blocks, one after the other')
    parser.add_argument(
        '--stack', default='backbone.blocks',
        help='path of the blocks (default: backbone.blocks)')
    parser.add_argument(
        '--shape', type=int, nargs=3, metavar=('FRAMES', 'HEIGHT', 'WIDTH'),
        help='one window; default: what the test pipeline gives')
    parser.add_argument(
        '--keep-lora', action='store_true',
        help='count LoRA as it is trained; default: merged')
    parser.add_argument(
        '--latency', action='store_true',
        help='also run the models, on the GPU if there is one')
    parser.add_argument('--out', help='also write the table into this file')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='settings of the config to replace, as key=value')
    return parser.parse_args(argv)


def window_shape(cfg: Config,
                 given: Optional[Sequence[int]]) -> Tuple[int, ...]:
    """Shape of the inputs for one window.

    Args:
        cfg: A whole config.
        given: Frames, height and width; None asks the config.

    Returns:
        (1, 1, channels, frames, height, width), or (1, channels, grid steps)
        for features.

    Raises:
        ValueError: The config does not tell.
    """
    model = localizer_config(cfg)
    if given:
        channels = (model.get('backbone') or {}).get('in_channels', 3)
        return 1, 1, channels, *given
    shape = input_shape(cfg, model)
    if shape is None:
        raise ValueError(
            'test_dataloader.dataset has no window_size or its pipeline no '
            'Resize or CenterCrop of a fixed size: give --shape FRAMES '
            'HEIGHT WIDTH')
    return shape


def row_of(dropped: Sequence[int], remaining: int, parts: Dict[str, Part],
           full: Part, time: Optional[float]) -> Dict[str, str]:
    """One line of the table.

    Args:
        dropped: Blocks that were removed.
        remaining: Number of the others.
        parts: What :func:`~mmblockdrop.report.complexity` gave.
        full: Total of the uncompressed model.
        time: Latency in milliseconds.

    Returns:
        Text by column.
    """
    total = parts['total']
    digits = 1 if full.macs > 1e11 else 3
    row = {
        'dropped': ' '.join(map(str, dropped)) or '-',
        'blocks': str(remaining),
        'params (M)': f'{total.params / 1e6:.2f}'
    }
    for title, children in COLUMNS.items():
        macs = sum(parts[c].macs for c in children if c in parts)
        row[f'{title} (G)'] = f'{macs / 1e9:.{digits}f}'
    row['everything (G)'] = f'{total.macs / 1e9:.{digits}f}'
    row['saved'] = f'{100 * (1 - total.macs / full.macs):.1f} %'
    for title, children in COLUMNS.items():
        macs = sum(parts[c].paper for c in children if c in parts)
        row[f'paper: {title} (G)'] = f'{macs / 1e9:.{digits}f}'
    row['paper: total (G)'] = f'{total.paper / 1e9:.{digits}f}'
    row['paper: saved'] = f'{100 * (1 - total.paper / full.paper):.1f} %'
    if time is not None:
        row['latency (ms)'] = f'{time:.1f}'
    return row


def run(args: argparse.Namespace) -> str:
    """Count.

    Args:
        args: See :func:`parse_args`.

    Returns:
        The table as Markdown.
    """
    require_file(args.config, 'config')
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    shape = window_shape(cfg, args.shape)
    model = build(cfg, args.latency, args.keep_lora)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    inputs = torch.zeros(shape, device=device if args.latency else 'meta')
    model.to(inputs.device)
    stack = BlockStack(model, args.stack)
    stack.probe(lambda: model(inputs, mode='tensor'))
    order = args.drop_blocks or stack.candidates()[::-1][:args.drop]
    if args.drop > min(len(stack.remaining) - 1, len(stack.candidates())):
        raise ValueError(f'--drop {args.drop}: {args.stack} has '
                         f'{len(stack.remaining)} blocks, and one has to stay.'
                         f'{stack.why_fixed}')
    rows: List[Dict[str, str]] = []
    full = None
    for i in range(len(order) + 1):
        if i:
            stack.remove(order[i - 1])
        parts = complexity(model, inputs)
        full = full or parts['total']
        time = latency_ms(model, inputs) if args.latency else None
        rows.append(
            row_of(order[:i], len(stack.remaining), parts, full, time))
    return (f'One window of {" x ".join(map(str, shape))}, G = 1e9 '
            'multiply-accumulates.\nneck: projection and neck; paper: the '
            "paper's counting, without FFN, patch embedding and attention "
            f'products.\n\n{markdown_table(rows)}')


def build(cfg: Config, real: bool, keep_lora: bool) -> torch.nn.Module:
    """Build the localizer, with weights or without.

    Args:
        cfg: A whole config.
        real: Whether it has to run.
        keep_lora: Whether LoRA stays.

    Returns:
        The localizer.
    """
    model_cfg = localizer_config(cfg)
    backbone = model_cfg.get('backbone')
    if not keep_lora and backbone and backbone.get('lora'):
        # Merged LoRA costs nothing: count the model without it.
        backbone.lora = None
    if real:
        model = MODELS.build(model_cfg)
        if not keep_lora:
            merge_lora(model)
        return model.eval()
    with empty_weights():
        return MODELS.build(model_cfg).to('meta').eval()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the table."""
    args = parse_args(argv)
    try:
        table = run(args)
    except (OSError, ValueError) as error:
        print(f'complexity.py: {error}', file=sys.stderr)
        return 1
    print(table)
    if args.out:
        Path(args.out).write_text(table + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
