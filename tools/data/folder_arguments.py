"""What the programs of this folder share: arguments and exit status."""
import argparse
import os
import sys
from typing import Callable


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add where videos and annotations are.

    Args:
        parser: Has no arguments yet.
    """
    parser.add_argument('root', help='folder that the other paths start from')
    parser.add_argument(
        '--ann', default='annotations.json', help='annotation file')
    parser.add_argument('--videos', default='videos',
                        help='folder of the videos')
    parser.add_argument(
        '--filename-tmpl', default='{}',
        help='file name of a video without suffix, v_{} for ActivityNet')


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the number of processes.

    Args:
        parser: Has the program's own arguments.
    """
    parser.add_argument(
        '--workers', type=int, default=min(8, os.cpu_count() or 1))


def exit_status(program: str, run: Callable[[argparse.Namespace], int],
                args: argparse.Namespace) -> int:
    """Run, and say in one line why it could not begin.

    Args:
        program: Name of the program, for the message.
        run: What it does; returns an exit status.
        args: The arguments.

    Returns:
        What ``run`` returns, or 2 for a wrong path or value.
    """
    try:
        return run(args)
    except (OSError, ValueError) as error:
        print(f'{program}: {error}', file=sys.stderr)
        return 2
