"""Convert annotations of labelling programs, or of other projects.

    python tools/data/convert_annotations.py labels.csv \
        data/my_data/annotations.json --videos data/my_data/videos \
        --split 0.7,0.15,0.15

FROM is a table of intervals (CSV, TSV), VIA 3, ELAN, BORIS, Label Studio,
CVAT, THUMOS text, or JSON as of ActivityNet, ActionFormer and mmaction2; or a
folder of such files. TO ends in .json, or in .csv or .tsv for a table.
"""
import argparse
import sys
from collections import Counter
from typing import Dict, List, Optional, Sequence

from mmblockdrop.data.prepare.annotation_formats import (COLUMNS, FORMATS,
                                                         Options)
from mmblockdrop.data.prepare.convert_annotations import convert
from mmblockdrop.utils.messages import require_choice

from folder_arguments import exit_status


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Defaults to ``sys.argv``.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='FROM')
    parser.add_argument('target', metavar='TO')
    parser.add_argument(
        '--format', help='told from the content by default; one of '
        + ', '.join(dict.fromkeys(item.name for item in FORMATS)))
    parser.add_argument(
        '--videos', help='folder of the videos, to measure length and rate')
    parser.add_argument(
        '--fps', type=float, help='frames per second, where times are frames')
    parser.add_argument(
        '--video', metavar='NAME', help='name of the video where the file has '
        "none; '{}' stands for the name of the file")
    parser.add_argument(
        '--column', nargs='+', default=[], metavar='WHAT=HEADING',
        help='columns of a table that are not guessed: '
        + ', '.join(COLUMNS))
    parser.add_argument(
        '--tier', nargs='+', metavar='NAME',
        help='ELAN tiers or VIA attributes to read (default: all)')
    subsets = parser.add_mutually_exclusive_group()
    subsets.add_argument('--subset', help='subset of all videos')
    subsets.add_argument(
        '--split', metavar='TRAINING,VALIDATION,TEST',
        help='divide the videos at random, such as 0.7,0.15,0.15')
    parser.add_argument('--seed', type=int, default=0, help='of the split')
    return parser.parse_args(argv)


def read_columns(items: Sequence[str]) -> Dict[str, str]:
    """Headings by what they hold.

    Args:
        items: ``WHAT=HEADING`` each.

    Returns:
        The mapping.

    Raises:
        ValueError: There is no such column.
    """
    columns = {}
    for item in items:
        what, _, heading = item.partition('=')
        require_choice('--column', what, COLUMNS)
        columns[what] = heading
    return columns


def read_shares(text: str) -> List[float]:
    """Shares of a split.

    Args:
        text: Numbers with commas between them.

    Returns:
        The numbers.

    Raises:
        ValueError: One is not a number.
    """
    try:
        return [float(share) for share in text.split(',')]
    except ValueError:
        raise ValueError(f'--split={text!r}: expected three numbers such as '
                         '0.7,0.15,0.15') from None


def run(args: argparse.Namespace) -> int:
    """Convert and report.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Exit status.
    """
    if args.fps is not None and not 0 < args.fps < float('inf'):
        raise ValueError(f'--fps={args.fps}: expected a positive number')
    found = convert(
        args.source, args.target,
        Options(args.video, read_columns(args.column), args.tier, args.fps,
                args.videos), args.format, args.subset,
        args.split and read_shares(args.split), args.seed)
    entries = found.database.values()
    labels = Counter(action['label'] for entry in entries
                     for action in entry['annotations'])
    print(f'{args.target}: {len(entries)} videos, {sum(labels.values())} '
          f'actions of {len(labels)} classes')
    for subset, count in Counter(e['subset'] for e in entries).items():
        print(f'  {subset}: {count} videos')
    for reason, count in (+found.left_out).items():
        print(f'  left out: {count} {reason}')
    unknown = sum('duration' not in entry for entry in entries)
    if unknown:
        print(f'  {unknown} videos have no duration; --videos measures it')
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Convert; 0 done, 2 could not be converted."""
    return exit_status('convert_annotations.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
