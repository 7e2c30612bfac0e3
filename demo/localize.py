"""Localize the actions of one video.

    python demo/localize.py video.mp4 --config CONFIG --checkpoint CHECKPOINT

prints the scored segments in seconds and writes them as JSON, together with
a picture of them above frames of the video. A compressed checkpoint is
loaded with the config it was made with.
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.apis import (draw_localization, init_localizer,
                              localize_video, of_classes, read_actions)
from mmblockdrop.evaluation.activitynet import write_detections
from mmblockdrop.inference.localize import PRECISIONS


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


def table(detections: Sequence[Dict[str, Any]]) -> str:
    """Lay out detections in order of time.

    Args:
        detections: ``segment`` in seconds, ``label``, ``score``.

    Returns:
        One line for each.
    """
    width = max([5, *(len(d['label']) for d in detections)])
    lines = [f'{"start (s)":>9} {"end (s)":>9}  {"label":<{width}}  score']
    for d in sorted(detections, key=lambda d: d['segment']):
        start, end = d['segment']
        lines.append(f'{start:9.2f} {end:9.2f}  {d["label"]:<{width}}  '
                     f'{d["score"]:5.3f}')
    return '\n'.join(lines)


def run(args: argparse.Namespace) -> List[Path]:
    """Localize, print and write.

    Args:
        args: See :func:`parse_args`.

    Returns:
        The JSON file and the picture.
    """
    truth = None if args.ann_file is None else read_actions(
        args.ann_file, args.video)
    found = localize(args, args.config, args.checkpoint)
    best = max(found['scores'], default=0.)
    if truth is not None:
        truth = of_classes(truth, found['classes'])
    found = above(found, args.score_thr)
    if found['detections']:
        print(table(found['detections']))
    else:
        print(f'No segment reaches --score-thr {args.score_thr}; the best '
              f'scores {best:.3f}.')
    teacher = None
    if args.teacher_checkpoint is not None:
        teacher = above(
            localize(args, args.teacher_config or args.config,
                     args.teacher_checkpoint), args.score_thr)

    stem = Path(args.video).stem
    files = [Path(args.out_dir) / f'{stem}.{end}' for end in ('json', 'png')]
    write_detections(
        files[0],
        {stem: (found['segments'], found['scores'], found['labels'])},
        found['classes'],
        duration=found['duration'])
    draw_localization(
        found, files[1], teacher, truth,
        'localized' if teacher is None else 'compressed')
    print('Written:', *files)
    return files


def localize(args: argparse.Namespace, config: str,
             checkpoint: str) -> Dict[str, Any]:
    """Load a model and find the actions of the video.

    Args:
        args: See :func:`parse_args`.
        config: Its config.
        checkpoint: Its weights.

    Returns:
        What ``localize_video`` returns.
    """
    model = init_localizer(config, checkpoint, args.device)
    if args.compile and getattr(model, 'backbone', None) is not None:
        model.backbone.compile()
    return localize_video(
        model, args.video, batch_size=args.batch_size,
        precision=args.precision)


def above(found: Dict[str, Any], score_thr: float) -> Dict[str, Any]:
    """Keep the detections that reach a score.

    Args:
        found: What ``localize_video`` returned.
        score_thr: The least score.

    Returns:
        The same with fewer detections.
    """
    keep = found['scores'] >= score_thr
    kept = {key: found[key][keep] for key in ('segments', 'scores', 'labels')}
    kept['detections'] = [
        d for d, k in zip(found['detections'], keep) if k
    ]
    return dict(found, **kept)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run; mistakes of the user end in one line instead of a traceback."""
    try:
        run(parse_args(argv))
    except (FileNotFoundError, ValueError) as error:
        print(f'localize.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
