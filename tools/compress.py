"""Compress a trained localizer without writing a config.

    python tools/compress.py CONFIG CHECKPOINT --drop 25%
    python tools/compress.py CONFIG CHECKPOINT --max-macs 75%
    python tools/compress.py CONFIG CHECKPOINT --drop 50% --no-training

writes a config that inherits from CONFIG into WORK_DIR/config, says where, and
runs it. The file stays: change it and run it with tools/train.py.
"""
import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.compression.derive import compression_config, write_once
from mmblockdrop.utils.lock import WorkDirInUse, owned
from mmblockdrop.utils.messages import require_file

import train
from mmengine.config import DictAction


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config that trains the localizer')
    parser.add_argument('checkpoint', help='the trained localizer')
    parser.add_argument(
        '--blocks',
        nargs='+',
        metavar='PATH',
        help='the stack to shorten, such as backbone.blocks; default: the '
        'longest, with those of the same kind beside it')
    ends = parser.add_argument_group('when to stop (25 % if none is given)')
    ends.add_argument(
        '--drop', help='number of blocks to drop, or a share such as 25%%')
    ends.add_argument(
        '--max-macs', type=cost, help='most MACs, a number or such as 75%%')
    ends.add_argument(
        '--max-params', type=cost, help='most parameters, likewise')
    ends.add_argument(
        '--max-latency-ms', type=cost, help='most latency, likewise')
    ends.add_argument(
        '--tolerance',
        type=float,
        help='most that the metric may fall under that of CHECKPOINT')
    parser.add_argument(
        '--metric', help='metric to go by; default: by type of evaluator')
    parser.add_argument(
        '--epochs', type=int, default=3, help='epochs per round (3)')
    parser.add_argument(
        '--no-training',
        action='store_true',
        help='repair what is dropped in closed form and train nothing; blocks '
        'are chosen without labels, by the error of the features')
    parser.add_argument(
        '--lora', type=int, metavar='RANK',
        help='train LoRA of this rank in the blocks, not their weights')
    parser.add_argument(
        '--work-dir', help='default: work_dirs/NAME_blockdrop')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='write the config, do not run it')
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a config that this program wrote there before')
    parser.add_argument('--amp', action='store_true', help='see train.py')
    parser.add_argument(
        '--resume', action='store_true',
        help='go on with an interrupted run, with the config that is there')
    parser.add_argument('--seed', type=int, help='random seed')
    parser.add_argument(
        '--processes', type=int, default=1,
        help='run on several GPUs, or in several processes without GPU')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings to replace when the config is run, as of train.py; '
        'the file is left as it is')
    return parser.parse_args(argv)


def cost(text: str) -> Any:
    """Read a number, or a share with a percent sign.

    Args:
        text: Such as '2.5e9' or '75%'.

    Returns:
        The number, or the share as it is.

    Raises:
        ValueError: It is neither, or not positive.
    """
    number = float(text.rstrip('%'))
    if number <= 0:
        raise ValueError(f'{text} is not positive')
    return text if text.endswith('%') else number


def loop_arguments(args: argparse.Namespace) -> Dict[str, Any]:
    """Arguments of ``DistillationLoop`` that the command line gives.

    Args:
        args: See :func:`parse_args`.

    Returns:
        ``drops``, ``stop``, ``lora``, ``repair`` and ``scorer`` as far as
        given.

    Raises:
        ValueError: ``--drop`` is neither a number nor a share.
    """
    budget = {
        key: value
        for key, value in (('macs', args.max_macs),
                           ('params', args.max_params),
                           ('latency_ms', args.max_latency_ms))
        if value is not None
    }
    loop: Dict[str, Any] = {}
    drop = args.drop
    if drop is None and not budget and args.tolerance is None:
        drop = '25%'
    if drop is not None:
        digits = drop.rstrip('%')
        if not digits.replace('.', '', 1).isdigit() or (
                '.' in digits and not drop.endswith('%')):
            raise ValueError(f'--drop {drop}: expected a number of blocks, '
                             "or a share such as '25%'")
        loop['drops'] = drop if drop.endswith('%') else int(drop)
    stop: Dict[str, Any] = {}
    if budget:
        stop['budget'] = budget
    if args.tolerance is not None:
        stop['tolerance'] = args.tolerance
    if stop:
        loop['stop'] = stop
    if args.no_training:
        loop['repair'] = dict(type='mmblockdrop.LinearRepair')
        loop['scorer'] = dict(type='mmblockdrop.FeatureErrorScorer')
    elif args.lora:
        loop['lora'] = dict(rank=args.lora)
    return loop


def prepare(args: argparse.Namespace, target: Path) -> None:
    """Write the config, or check that the one to resume is there.

    Args:
        args: See :func:`parse_args`.
        target: The config.

    Raises:
        FileNotFoundError: A file that is named does not exist.
        ValueError: The given config cannot be compressed.
        WorkDirInUse: Another run owns the folder.
    """
    work_dir = target.parents[1]
    if args.resume:
        require_file(str(target), '--resume')
        with owned(work_dir):
            return
    require_file(args.config, 'config')
    require_file(args.checkpoint, 'checkpoint')
    text = compression_config(args.config, args.checkpoint, target,
                              loop_arguments(args), args.blocks, args.metric,
                              0 if args.no_training else args.epochs)
    with owned(work_dir):
        write_once(text, target, args.overwrite)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Write the config and run it."""
    args = parse_args(argv)
    name = Path(args.config).stem
    work_dir = Path(args.work_dir or f'work_dirs/{name}_blockdrop')
    # Not in work_dir itself, where mmengine puts a copy of what it runs.
    target = work_dir / 'config' / f'{name}_blockdrop.py'
    try:
        prepare(args, target)
    except (FileNotFoundError, ValueError, WorkDirInUse) as error:
        print(f'compress.py: {error}', file=sys.stderr)
        return 1
    print(f'Config: {target}', flush=True)
    if args.dry_run:
        return 0
    options = [str(target), '--work-dir', str(work_dir)]
    for flag in ('amp', 'resume'):
        options += [f'--{flag}'] * getattr(args, flag)
    if args.seed is not None:
        options += ['--seed', str(args.seed)]
    if args.cfg_options:
        options += ['--cfg-options', *given(argv, '--cfg-options')]
    if args.processes > 1:
        return subprocess.call([
            sys.executable, '-m', 'torch.distributed.run', '--standalone',
            f'--nproc_per_node={args.processes}', train.__file__, *options,
            '--launcher', 'pytorch'
        ])
    train.main(options)
    return 0


def given(argv: Optional[Sequence[str]], option: str) -> List[str]:
    """Values of an option as they stand on the command line.

    Args:
        argv: None for ``sys.argv``.
        option: Such as ``--cfg-options``.

    Returns:
        The words up to the next option.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    place = next(i for i, w in enumerate(words) if w.split('=')[0] == option)
    first = words[place].partition('=')[2]
    rest = itertools.takewhile(lambda w: not w.startswith('--'),
                               words[place + 1:])
    return [first] * bool(first) + list(rest)


if __name__ == '__main__':
    sys.exit(main())
