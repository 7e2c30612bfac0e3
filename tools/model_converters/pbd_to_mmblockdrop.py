"""Convert a detector of Progressive Block Drop, OpenTAD or AdaTAD.

The result loads into the config, without the dropped blocks and with LoRA
attached, through tools/test.py and mmblockdrop.apis.
"""
import argparse
from typing import Optional, Sequence

from conversion import add_config, finish, localizer_of, parse


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='published checkpoint')
    add_config(parser, 'config whose model it becomes')
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
    return parse(parser, argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The checkpoint does not fit the config.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import convert_detector, read_checkpoint
    localizer = localizer_of(args)
    converted, report = convert_detector(
        read_checkpoint(args.source),
        localizer,
        source=args.source,
        weights=args.weights,
        merge_lora=args.merge_lora,
        alpha=args.alpha)
    finish(converted, report, args)


if __name__ == '__main__':
    main()
