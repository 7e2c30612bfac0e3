"""Write a trained or compressed model as files that stand for themselves.

    python tools/export.py CONFIG CHECKPOINT OUT_DIR [--onnx]

LoRA is merged, dropped blocks are gone and the others renumbered. Where the
architecture is one of mmaction2's, mmaction2 builds and loads the files
without mmblockdrop.
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.apis import init_localizer
from mmblockdrop.export import (ExportError, example_inputs, export_model,
                                network, to_onnx)
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
    found = write_onnx(args, model, inputs, model_cfg) if args.onnx else None
    return export_model(model, cfg, model_cfg, inputs, args.out_dir,
                        args.checkpoint, args.tolerance, onnx=found)


def write_onnx(args: argparse.Namespace, model: Any, inputs: Any,
               model_cfg: dict) -> Dict[str, Any]:
    """Write ``model.onnx`` or ``encoder.onnx``.

    Args:
        args: See :func:`parse_args`.
        model: The compressed model.
        inputs: One sample of its inputs.
        model_cfg: Its config.

    Returns:
        What ``to_onnx`` found, and the file's size.

    Raises:
        ExportError: There is no encoder, or ONNX cannot express the model.
    """
    args.out_dir.mkdir(parents=True, exist_ok=True)
    path = args.out_dir / f'{args.onnx}.onnx'
    if args.onnx == 'encoder':
        if getattr(model, 'backbone', None) is None:
            raise ExportError('--onnx encoder: the model has no backbone')
        inputs = first_input(model, inputs)
        model = model.backbone
    try:
        found = to_onnx(model, inputs, path)
    except ExportError as error:
        hint = (' The encoder alone may work: --onnx encoder.'
                if args.onnx == 'model' and model_cfg.get('backbone') else '')
        raise ExportError(f'{error}.{hint}') from None
    print(f'{path} ({path.stat().st_size / 1e6:.2f} MB): batches of '
          f'{found["batch_sizes"]} agree with onnxruntime to '
          f'{found["max_difference"]:.2g}', flush=True)
    return dict(found, file=path.name, bytes=path.stat().st_size)


def first_input(model: Any, inputs: Any) -> Any:
    """What the encoder is given first when the model runs.

    Args:
        model: Model with a ``backbone``.
        inputs: Inputs of the model.

    Returns:
        One sample of what goes into the backbone.
    """
    seen: List[Any] = []
    handle = model.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    try:
        network(model)(inputs)
    finally:
        handle.remove()
    return seen[0][:1].detach()


def summary(report: Dict[str, Any], out_dir: Path) -> str:
    """What was done, in a few lines.

    Args:
        report: Content of ``export.json``.
        out_dir: Folder of the files.

    Returns:
        The lines.
    """
    lines = [
        f'{s["path"]}: kept {s["kept"]}, dropped {s["dropped"]}'
        for s in report['stacks']
    ] or ['No block was dropped.']
    lines.append(f'Outputs differ by {report["max_difference"]:.2g} at most, '
                 f'on random inputs of shape {report["inputs"]}.')
    for name, size in report['files'].items():
        lines.append(f'{out_dir / name} ({size / 1e6:.2f} MB)')
    if report['needs_mmblockdrop']:
        lines.append('model.py needs mmblockdrop, for '
                     + ', '.join(report['needs_mmblockdrop']) + '.')
        if 'encoder.py' in report['files']:
            lines.append('encoder.py does not: it is the encoder alone.')
    else:
        lines.append('Nothing of this needs mmblockdrop.')
    if report['left_out']:
        lines.append('Left out, as they need mmblockdrop: '
                     + ', '.join(report['left_out']) + '.')
    return '\n'.join(lines)


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
