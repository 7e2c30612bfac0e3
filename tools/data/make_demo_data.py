"""Write the demonstration data: untrimmed videos and their annotations."""
import argparse
import os
from dataclasses import replace

from mmblockdrop.data.prepare.synthetic import (DemoSpec, is_finished,
                                                make_dataset)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--videos',
        type=int,
        nargs=3,
        metavar=('TRAINING', 'VALIDATION', 'TEST'),
        help='number of videos of each subset')
    parser.add_argument(
        '--workers', type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    spec = DemoSpec(seed=args.seed)
    if args.videos:
        spec = replace(spec, videos=dict(zip(spec.videos, args.videos)))
    if is_finished(args.out, spec):
        print(f'{args.out}: {len(spec.names())} videos are there already')
        return
    print(f'{args.out}: writing {len(spec.names())} videos')
    make_dataset(args.out, spec, args.workers)
    print()


if __name__ == '__main__':
    main()
