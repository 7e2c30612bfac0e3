"""Re-encode videos so that windows of them decode fast.

    python tools/data/resize_videos.py data/thumos14/videos \\
        data/thumos14/videos_160 --short-side 160

Every video gets a key frame every ``--gop`` frames, a constant frame rate
and a small size; sound is left out. Finished files are kept: call it again
after an interruption. Needs the program ffmpeg.
"""
import argparse
import json
import os
import os.path as osp
import sys
from typing import Dict, List, Optional, Sequence

import mmblockdrop  # noqa: F401  (applies the patches)
from mmblockdrop.data.prepare.parallel import for_each
from mmblockdrop.data.prepare.transcode import Recipe, find_ffmpeg, transcode
from mmblockdrop.utils.io import read_json, write_json
from mmblockdrop.utils.messages import require_folder, require_whole
from mmblockdrop.utils.video import VIDEO_SUFFIXES

from folder_arguments import add_workers, exit_status

#: In the folder of the results: how they were made.
RECIPE = 'recipe.json'


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
    parser.add_argument('source', help='folder of videos, searched deeply')
    parser.add_argument('target', help='folder of the new videos')
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        '--short-side', type=int, default=160,
        help='pixels of the short side, 0 keeps the size (default: 160)')
    size.add_argument(
        '--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'),
        help='pixels, whatever the shape of the video')
    parser.add_argument(
        '--gop', type=int, default=16,
        help='a key frame every so many frames (default: 16)')
    parser.add_argument(
        '--fps', type=float,
        help='frames per second; default: the average rate of each video')
    parser.add_argument(
        '--crf', type=int, default=20,
        help='quality of H.264, lower is better (default: 20)')
    add_workers(parser)
    return parser.parse_args(argv)


def find_videos(source: str) -> List[str]:
    """All videos of a folder.

    Args:
        source: Folder.

    Returns:
        Paths relative to it, sorted.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no video, or two differ in suffix alone.
    """
    require_folder(source, 'source')
    videos = sorted(
        osp.relpath(osp.join(folder, name), source)
        for folder, _, names in os.walk(source) for name in names
        if osp.splitext(name)[1].lower() in VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f'{source!r} has no video with a suffix of '
                         f'{", ".join(VIDEO_SUFFIXES)}')
    stems: Dict[str, str] = {}
    for video in videos:
        other = stems.setdefault(osp.splitext(video)[0], video)
        if other != video:
            raise ValueError(f'{video!r} and {other!r} of {source!r} would '
                             'both become the same file; remove one')
    return videos


def check_settings(target: str, recipe: Recipe) -> None:
    """Record how a folder is made, and reject another way later.

    Args:
        target: Folder of the new videos.
        recipe: How they are to be made.

    Raises:
        ValueError: The folder was begun with other settings.
    """
    os.makedirs(target, exist_ok=True)
    path = osp.join(target, RECIPE)
    wanted = json.loads(json.dumps(dict(recipe._asdict(), encoder='ffmpeg')))
    if osp.exists(path):
        begun = read_json(path, RECIPE)
        differ = [f'{key}={begun.get(key)!r}, now {value!r}'
                  for key, value in wanted.items() if begun.get(key) != value]
        if differ:
            raise ValueError(f'{target!r} was begun with {"; ".join(differ)}: '
                             'use the same settings or another folder')
        return
    write_json(wanted, path)


class Job:
    """Re-encodes one video of the source; can be pickled.

    Args:
        source: Folder of videos.
        target: Folder of the new videos.
        recipe: How.
    """

    def __init__(self, source: str, target: str, recipe: Recipe) -> None:
        self.source, self.target, self.recipe = source, target, recipe

    def path_of(self, video: str) -> str:
        """Where a video goes."""
        return osp.join(self.target, osp.splitext(video)[0] + '.mp4')

    def __call__(self, video: str) -> int:
        """Re-encode; return the number of frames."""
        return transcode(osp.join(self.source, video), self.path_of(video),
                         self.recipe)


def remove_leftovers(target: str) -> None:
    """Remove the unfinished files of an interrupted call.

    Args:
        target: Folder of the new videos.
    """
    for folder, _, names in os.walk(target):
        for name in names:
            if name.endswith('.part.mp4'):
                os.remove(osp.join(folder, name))


def run(args: argparse.Namespace) -> int:
    """Re-encode what is not there yet.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Exit status, 1 if a video failed.
    """
    videos = find_videos(args.source)
    source, target = (osp.realpath(p) for p in (args.source, args.target))
    if osp.commonpath((source, target)) == source:
        raise ValueError(f'target={args.target!r} lies in the folder of the '
                         'source; name another folder')
    recipe = Recipe(
        short_side=args.short_side or None,
        size=tuple(args.size) if args.size else None,
        gop=args.gop,
        fps=args.fps,
        crf=args.crf)
    find_ffmpeg()
    require_whole('--gop', recipe.gop, 1)
    check_settings(args.target, recipe)
    remove_leftovers(args.target)
    job = Job(args.source, args.target, recipe)
    missing = [v for v in videos if not osp.exists(job.path_of(v))]
    print(f'{len(videos)} videos, {len(videos) - len(missing)} are finished; '
          f'ffmpeg writes {len(missing)} to {args.target}')
    done, failed = for_each(job, missing, args.workers)
    print(f'{len(done)} written, {len(failed)} failed')
    for video, why in failed.items():
        print(f'failed: {video}: {why}', file=sys.stderr)
    return int(bool(failed))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Re-encode; 0 all there, 1 some failed, 2 could not begin."""
    return exit_status('resize_videos.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
