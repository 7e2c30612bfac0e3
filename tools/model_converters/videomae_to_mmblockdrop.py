"""Convert a video transformer of VideoMAE, VideoMAEv2 or mmaction2.

The result is what ``pretrained=`` of ``mmblockdrop.LoRAViT`` takes.
"""
import argparse
from typing import Optional, Sequence

from conversion import finish, parse


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='published checkpoint')
    parser.add_argument(
        '--img-size',
        type=int,
        default=224,
        help='pixels of the frames it was trained on')
    parser.add_argument(
        '--num-frames', type=int, default=16, help='frames of a clip')
    return parse(parser, argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The file lacks something or holds something unknown.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import convert_encoder, read_checkpoint
    converted, report = convert_encoder(
        read_checkpoint(args.source), args.source, args.img_size,
        args.num_frames)
    finish(converted, report, args)


if __name__ == '__main__':
    main()
