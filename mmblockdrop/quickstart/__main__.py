"""Train, compress, test and localize, from videos to table and pictures.

    python -m mmblockdrop.quickstart [--data ROOT] [--work-dir DIR]
        [--backbone dinov2-small]

Without ``--data`` it generates demonstration videos. ``ROOT`` holds
``annotations.json`` in ActivityNet's format and a folder ``videos``. What is
finished is reused, as long as configs and annotations stay the same; an
interrupted step goes on from its last epoch.
"""
import argparse
import sys
import traceback
import warnings
from pathlib import Path
from typing import Optional, Sequence


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m mmblockdrop.quickstart',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--data', type=Path, help='folder with annotations.json and videos/')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='where results go (default: work_dirs/quickstart, with --data '
        'work_dirs/quickstart_<name of the folder>)')
    parser.add_argument(
        '--backbone',
        help='with --data: pretrained encoder of frames, dinov2-small, '
        'dinov2-base, or the file or URL of such weights; trained from '
        'scratch where they cannot be downloaded')
    args = parser.parse_args(argv)
    if args.backbone and not args.data:
        parser.error('--backbone goes with --data: the demonstration is made '
                     'for an encoder that learns from scratch')
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run all steps."""
    args = parse_args(argv)
    warnings.simplefilter('ignore')
    from . import StepFailed, quickstart
    try:
        quickstart(args.data, args.work_dir, backbone=args.backbone)
    except StepFailed as error:
        traceback.print_exception(error.__cause__)
        print(f'quickstart: {error}. When that is corrected, the same command '
              'goes on from here.', file=sys.stderr)
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        print(f'quickstart: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
