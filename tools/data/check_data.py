"""Check a folder of videos against its annotations.

    python tools/data/check_data.py data/thumos14 --classes category_idx.txt

Prints what does not fit as a table and its first examples, and exits with
status 1 if there is an error.
"""
import argparse
import json
import os.path as osp
import sys
from collections import Counter
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from mmblockdrop.data.annotations import (load_classes, read_database,
                                          read_names, select_subset)
from mmblockdrop.data.prepare.check import (ERRORS, WARNINGS, Found, Problem,
                                            check_folder)
from mmblockdrop.report import markdown_table

from folder_arguments import add_folder, add_workers, exit_status


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
    add_folder(parser)
    parser.add_argument('--no-videos', action='store_true',
                        help='look at the annotations alone')
    parser.add_argument(
        '--classes', help='file of the known labels; default: all are known')
    parser.add_argument(
        '--drop-labels', nargs='+', default=[], metavar='LABEL',
        help='labels that are background, such as Ambiguous')
    parser.add_argument(
        '--block-list',
        help='file of the videos to leave out, as of the data set')
    parser.add_argument('--subset', nargs='+',
                        help='subsets to check; default: all')
    parser.add_argument(
        '--tolerance', type=float, default=0.01,
        help='share by which rate and duration may differ (default: 0.01)')
    parser.add_argument(
        '--no-decode', action='store_true',
        help='open the videos only; do not decode first and last frame')
    add_workers(parser)
    parser.add_argument('--show', type=int, default=5,
                        help='examples of each problem (default: 5)')
    parser.add_argument('--out', type=Path, help='also write all as JSON')
    parser.add_argument('--strict', action='store_true',
                        help='exit with status 1 on warnings too')
    return parser.parse_args(argv)


def summary(problems: Sequence[Problem]) -> str:
    """Table of the problems by kind.

    Args:
        problems: What was found.

    Returns:
        Markdown.
    """
    rows = []
    for kind in ERRORS + WARNINGS:
        found = [p for p in problems if p.kind == kind]
        if found:
            rows.append({
                'problem': kind,
                'weight': 'error' if kind in ERRORS else 'warning',
                'videos': str(len({p.video for p in found})),
                'times': str(len(found))
            })
    return markdown_table(rows) if rows else 'Everything fits.'


def examples(problems: Sequence[Problem], count: int) -> str:
    """First examples of every kind of problem.

    Args:
        problems: What was found.
        count: Examples of each kind.

    Returns:
        One line each.
    """
    lines: List[str] = []
    seen: Counter = Counter()
    for problem in problems:
        seen[problem.kind] += 1
        if seen[problem.kind] <= count:
            lines.append(
                f'{problem.kind}: {problem.video}: {problem.detail}')
    return '\n'.join(lines)


def as_json(database: Dict[str, dict], problems: Sequence[Problem],
            found: Dict[str, Found]) -> dict:
    """The whole report as plain data.

    Args:
        database: Annotations by video.
        problems: What does not fit.
        found: Timing of the files.

    Returns:
        Ready for JSON.
    """
    return dict(
        videos=len(database),
        readable=len(found),
        errors=sum(p.is_error for p in problems),
        warnings=sum(not p.is_error for p in problems),
        problems=[
            dict(p._asdict(), weight='error' if p.is_error else 'warning')
            for p in problems
        ],
        files={name: f._asdict() for name, f in found.items()})


def run(args: argparse.Namespace) -> int:
    """Check and report.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Exit status.
    """
    ann_file = osp.join(args.root, args.ann)
    database = read_database(ann_file)
    if args.subset:
        database = select_subset(
            {k: v for k, v in database.items() if isinstance(v, dict)},
            args.subset, ann_file)
    if args.block_list:
        blocked = set(read_names(args.block_list, args.root, '--block-list'))
        database = {k: v for k, v in database.items() if k not in blocked}
    classes = None
    if args.classes:
        classes = load_classes(args.classes, args.root, database,
                               args.drop_labels)
    problems, found = check_folder(
        database,
        None if args.no_videos else osp.join(args.root, args.videos),
        classes,
        args.drop_labels,
        args.filename_tmpl,
        tolerance=args.tolerance,
        decode=not args.no_decode,
        workers=args.workers)
    actions = sum(
        len(v['annotations']) for v in database.values()
        if isinstance(v, dict) and isinstance(v.get('annotations'), list))
    print(f'{ann_file}: {len(database)} videos, {actions} actions'
          f'{"" if args.no_videos else f"; {len(found)} files are readable"}')
    print(f'\n{summary(problems)}')
    if problems:
        print(f'\n{examples(problems, args.show)}')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps(as_json(database, problems, found), indent=1) + '\n')
        print(f'\nAll of it is in {args.out}')
    return int(any(p.is_error or args.strict for p in problems))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Check a folder; 0 fits, 1 does not, 2 could not be checked."""
    return exit_status('check_data.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
