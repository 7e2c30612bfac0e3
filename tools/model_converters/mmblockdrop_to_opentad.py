"""Convert a localizer into a detector of OpenTAD, such as AdaTAD."""
import argparse
from typing import Optional, Sequence

from conversion import add_config, finish, localizer_of, parse


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of mmblockdrop')
    add_config(parser, 'config of its localizer')
    return parse(parser, argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The checkpoint does not fit the config.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import detector_for_opentad, read_checkpoint
    localizer = localizer_of(args)
    converted, report = detector_for_opentad(
        read_checkpoint(args.source), localizer, args.source)
    finish(converted, report, args)


if __name__ == '__main__':
    main()
