"""Localize the actions of one video.

    python tools/localize.py video.mp4 --config CONFIG --checkpoint CHECKPOINT

prints the scored segments in seconds and writes them as JSON, together with
a picture of them above frames of the video. A compressed checkpoint is
loaded with the config it was made with.
"""
import argparse
import sys
from typing import Optional, Sequence

import mmblockdrop  # noqa: F401  (first: it patches the stack)
from mmblockdrop.apis import localization_text, localize_to_files
from mmblockdrop.inference.localize import PRECISIONS


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('video', help='video file')
    parser.add_argument('--config', required=True, help='config file')
    parser.add_argument(
        '--checkpoint', required=True, help='weights, compressed or not')
    parser.add_argument(
        '--teacher-checkpoint',
        help='weights of the uncompressed model, to compare with')
    parser.add_argument(
        '--teacher-config',
        help='config of the uncompressed model; defaults to --config')
    parser.add_argument(
        '--ann-file', help='ActivityNet-style annotations, to compare with')
    parser.add_argument(
        '--out-dir', default='outputs', help='folder for JSON and picture')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='least score that is shown and written (default: 0.3)')
    parser.add_argument(
        '--batch-size', type=int, default=1,
        help='windows computed at once (default: 1)')
    parser.add_argument(
        '--precision', choices=PRECISIONS, default=PRECISIONS[0],
        help='bf16 computes by autocast (default: fp32)')
    parser.add_argument(
        '--compile', action='store_true',
        help='let torch compile the encoder first; pays on long videos')
    parser.add_argument(
        '--device', help='such as cpu or cuda:0; default: GPU if there is one')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run; mistakes of the user end in one line instead of a traceback."""
    args = parse_args(argv)
    try:
        found = localize_to_files(**vars(args))
    except (OSError, ValueError) as error:
        print(f'localize.py: {error}', file=sys.stderr)
        return 1
    print(localization_text(found))
    print('Written:', *found['files'])
    return 0


if __name__ == '__main__':
    sys.exit(main())
