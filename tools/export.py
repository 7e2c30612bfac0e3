"""Write a trained or compressed model as files that stand for themselves.

    python tools/export.py CONFIG CHECKPOINT OUT_DIR [--onnx]

LoRA is merged, removed blocks are absent and the others renumbered. Where the
architecture is one of mmaction2's, mmaction2 builds and loads the files
without mmblockdrop.
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from mmblockdrop.apis import init_localizer
from mmblockdrop.export import (example_inputs, export_model, summary,
                                write_onnx)
from mmblockdrop.utils.config import localizer_config
from mmblockdrop.utils.messages import require_file

from mmengine.config import Config, DictAction


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config that made the checkpoint')
    parser.add_argument('checkpoint', help='checkpoint, compressed or not')
    parser.add_argument('out_dir', type=Path, help='folder for the files')
    parser.add_argument(
        '--onnx',
        choices=['model', 'encoder'],
        nargs='?',
        const='model',
        help='also write model.onnx, or encoder.onnx for the encoder alone')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        help='shape of the inputs that are compared; default: what the test '
        'pipeline of the config gives, one sample')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-5,
        help='largest difference of outputs before and after (1e-5)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings of the config to replace, as key=value')
    return parser.parse_args(argv)


def export(args: argparse.Namespace) -> Dict[str, Any]:
    """Do what the command line says.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Content of ``export.json``.
    """
    require_file(args.config, 'config')
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    model = init_localizer(cfg, args.checkpoint, device='cpu')
    model_cfg = localizer_config(cfg)
    inputs = example_inputs(cfg, model_cfg, args.shape)
    found = None
    if args.onnx:
        found = write_onnx(model, inputs, args.out_dir, args.onnx)
        print(f'{args.out_dir / found["file"]} ({found["bytes"] / 1e6:.2f} '
              f'MB): batches of {found["batch_sizes"]} agree with onnxruntime '
              f'to {found["max_difference"]:.2g}', flush=True)
    return export_model(model, model.cfg, model_cfg, inputs, args.out_dir,
                        args.checkpoint, args.tolerance, onnx=found)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Export."""
    args = parse_args(argv)
    try:
        print(summary(export(args), args.out_dir))
    except (FileNotFoundError, ImportError, ValueError) as error:
        print(f'export.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
