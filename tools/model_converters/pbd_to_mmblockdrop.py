"""Convert a detector of Progressive Block Drop, OpenTAD or AdaTAD.

The result loads into the config, without the dropped blocks and with LoRA
attached, through tools/test.py and mmblockdrop.apis.
"""
import argparse
from typing import Optional, Sequence

import mmblockdrop  # applies its patches

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='published checkpoint')
    parser.add_argument('config', help='config whose model it becomes')
    parser.add_argument('target', nargs='?', help='file to write')
    parser.add_argument(
        '--weights',
        choices=['ema', 'live'],
        help='averaged or live weights; averaged ones if the file has them')
    parser.add_argument(
        '--merge-lora',
        action='store_true',
        help='fold LoRA into the layers instead of keeping it attached')
    parser.add_argument(
        '--alpha',
        type=float,
        default=1.,
        help='factor of the published LoRA layers, which no file holds')
    parser.add_argument(
        '--check', action='store_true', help='report only, write nothing')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings of the config to replace, as key=value')
    args = parser.parse_args(argv)
    if args.check == (args.target is not None):
        parser.error('give either a file to write or --check')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The checkpoint does not fit the config.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import (convert_detector, read_checkpoint,
                                     save_checkpoint)
    from mmblockdrop.utils.config import localizer_config
    from mmblockdrop.utils.messages import require_file
    require_file(args.config, 'config')
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    converted, report = convert_detector(
        read_checkpoint(args.source),
        localizer_config(cfg),
        source=args.source,
        weights=args.weights,
        merge_lora=args.merge_lora,
        alpha=args.alpha)
    print(report.text())
    report.check()
    if not args.check:
        save_checkpoint(converted, args.target, args.source)
        print(f'wrote {args.target}')


if __name__ == '__main__':
    main()
