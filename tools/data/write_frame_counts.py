"""Write frames and rate of every video into a copy of its annotations.

    python tools/data/write_frame_counts.py data/my_data

With them a data set starts without opening a single video. What an earlier
call has written stays, unless ``--again`` is given.
"""
import argparse
import json
import os.path as osp
import sys
from functools import partial
from typing import Any, Dict, Optional, Sequence

from mmblockdrop.data.annotations import load_database
from mmblockdrop.data.prepare.check import inspect_video
from mmblockdrop.data.prepare.parallel import for_each
from mmblockdrop.utils.io import write_json
from mmblockdrop.utils.messages import require_folder
from mmblockdrop.utils.video import find_media

from folder_arguments import add_folder, add_workers, exit_status

#: Videos between two writes of the copy.
BATCH = 200


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
    parser.add_argument(
        '--out', default='annotations_frames.json',
        help='copy to write (default: %(default)s)')
    parser.add_argument(
        '--duration', action='store_true',
        help='replace "duration" too; default: only where it is absent')
    parser.add_argument('--again', action='store_true',
                        help='read videos again that the copy has already')
    add_workers(parser)
    return parser.parse_args(argv)


def read_content(path: str) -> Dict[str, Any]:
    """Read a whole annotation file, fields outside the database included.

    Args:
        path: Annotation file.

    Returns:
        Its content.
    """
    load_database(path)  # for its errors
    with open(path, encoding='utf8') as file:
        return json.load(file)


def run(args: argparse.Namespace) -> int:
    """Read the videos and write the copy.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Exit status, 1 if a video could not be read.
    """
    folder = osp.join(args.root, args.videos)
    require_folder(folder, '--videos')
    content = read_content(osp.join(args.root, args.ann))
    out = osp.join(args.root, args.out)
    if osp.exists(out) and osp.samefile(out, osp.join(args.root, args.ann)):
        raise ValueError(f'--out={args.out!r} is the annotation file itself; '
                         'name another file')
    before = load_database(out) if (
        osp.exists(out) and not args.again) else {}
    database = content['database']
    files: Dict[str, str] = {}
    failed: Dict[str, str] = {}
    for name, entry in database.items():
        known = before.get(name, {})
        if 'frame' in known and 'fps' in known:
            entry.update({k: known[k] for k in ('frame', 'fps', 'duration')
                          if k in known})
            continue
        path = find_media(folder, args.filename_tmpl.format(name),
                          where=args.ann)
        if path is None:
            failed[name] = f'no file in {folder!r}'
        else:
            files[path] = name
    print(f'{len(database)} videos: {len(database) - len(files) - len(failed)}'
          f' are in {out} already, {len(files)} to read')
    paths = list(files)
    try:
        for start in range(0, len(paths), BATCH):
            found, broken = for_each(
                partial(inspect_video, decode=False),
                paths[start:start + BATCH], args.workers)
            for path, video in found.items():
                entry = database[files[path]]
                entry.update(frame=video.frames, fps=round(video.fps, 6))
                if args.duration or not entry.get('duration'):
                    entry['duration'] = round(video.frames / video.fps, 3)
            failed.update({files[p]: why for p, why in broken.items()})
            write_json(content, out, None)
    finally:
        write_json(content, out, None)
    print(f'Wrote {out}')
    for name, why in failed.items():
        print(f'not read: {name}: {why}', file=sys.stderr)
    return int(bool(failed))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Write frame counts; 0 all, 1 some videos failed, 2 could not begin."""
    return exit_status('write_frame_counts.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
