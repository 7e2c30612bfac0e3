"""Convert the encoder of a localizer into a Recognizer3D of mmaction2."""
import argparse
from typing import Optional, Sequence

from conversion import finish, parse


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of mmblockdrop')
    parser.add_argument(
        '--lora-scale',
        type=float,
        help='alpha / rank of attached LoRA; that of the record, or else 1')
    return parse(parser, argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The file holds no whole encoder of mmblockdrop.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import encoder_for_mmaction, read_checkpoint
    converted, report = encoder_for_mmaction(
        read_checkpoint(args.source), args.source, args.lora_scale)
    finish(converted, report, args)


if __name__ == '__main__':
    main()
