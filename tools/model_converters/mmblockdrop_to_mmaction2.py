"""Convert the encoder of a localizer into a Recognizer3D of mmaction2."""
import argparse
from typing import Optional, Sequence

import mmblockdrop  # applies its patches


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of mmblockdrop')
    parser.add_argument('target', nargs='?', help='file to write')
    parser.add_argument(
        '--lora-scale',
        type=float,
        help='alpha / rank of attached LoRA; that of the record, or else 1')
    parser.add_argument(
        '--check', action='store_true', help='report only, write nothing')
    args = parser.parse_args(argv)
    if args.check == (args.target is not None):
        parser.error('give either a file to write or --check')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The file holds no whole encoder of mmblockdrop.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import (encoder_for_mmaction, read_checkpoint,
                                     save_checkpoint)
    converted, report = encoder_for_mmaction(
        read_checkpoint(args.source), args.source, args.lora_scale)
    print(report.text())
    report.check()
    if not args.check:
        save_checkpoint(converted, args.target, args.source)
        print(f'wrote {args.target}')


if __name__ == '__main__':
    main()
