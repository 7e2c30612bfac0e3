"""Compress a trained localizer without writing a config.

    python tools/compress.py CONFIG CHECKPOINT --preview
    python tools/compress.py CONFIG CHECKPOINT --drop 50% --no-training
    python tools/compress.py CONFIG CHECKPOINT --drop 25%
    python tools/compress.py CONFIG CHECKPOINT --max-macs 75%

--preview trains nothing: it drops and repairs block after block, measures
each depth, and says which one to take; --no-training writes that model.
Without them it writes a config that inherits from CONFIG into WORK_DIR/config,
says where, and runs it. The file stays: change it and run it with
tools/train.py.
"""
import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

from mmblockdrop.compression.derive import compression_config, write_once
from mmblockdrop.compression.preview_config import preview_config
from mmblockdrop.report.preview import (choose_depth, describe_preview,
                                        preview_points)
from mmblockdrop.rounds.preview import preview_key, read_key, take_from_preview
from mmblockdrop.rounds.stopping import count_drops
from mmblockdrop.utils.io import read_json
from mmblockdrop.utils.lock import WorkDirInUse, owned
from mmblockdrop.utils.messages import require_file

import train
from mmengine.config import Config, DictAction


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
    limit = dict(type=cost, nargs='+', default=[])
    ends.add_argument(
        '--max-macs', **limit,
        help='most MACs, a number or such as 75%%; several with --preview')
    ends.add_argument(
        '--max-params', **limit, help='most parameters, likewise')
    ends.add_argument('--max-latency-ms', **limit,
                      help='most latency, likewise')
    ends.add_argument(
        '--tolerance',
        type=float,
        help='most that the metric may fall under that of CHECKPOINT; of a '
        'preview 0.01')
    parser.add_argument(
        '--metric', help='metric to go by; default: by type of evaluator')
    parser.add_argument(
        '--epochs', type=int, default=3, help='epochs per round (3)')
    without = parser.add_argument_group('without training')
    without.add_argument(
        '--preview',
        action='store_true',
        help='measure the model at every depth, repaired in closed form')
    without.add_argument(
        '--until',
        type=int,
        help='blocks at which a preview ends (2)')
    without.add_argument(
        '--no-training',
        action='store_true',
        help='write the model of one depth of a preview; blocks are chosen '
        'without labels, by the error of the features')
    without.add_argument(
        '--calibrate',
        metavar='FOLDER',
        help='videos without labels to choose and repair by, in place of the '
        "config's; there is no metric then")
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


def budgets(args: argparse.Namespace) -> List[Dict[str, Any]]:
    """Limits of the command line, one by one.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Such as ``[dict(macs='75%'), dict(params=2e6)]``.
    """
    return [{
        key: value
    } for key in ('macs', 'params', 'latency_ms')
        for value in getattr(args, f'max_{key}')]


def read_drop(drop: str) -> Union[int, str]:
    """Read a number of blocks, or a share of them.

    Args:
        drop: ``--drop``.

    Returns:
        The number, or the share as it is.

    Raises:
        ValueError: It is neither.
    """
    digits = drop.rstrip('%')
    if not digits.replace('.', '', 1).isdigit() or (
            '.' in digits and not drop.endswith('%')):
        raise ValueError(f'--drop {drop}: expected a number of blocks, '
                         "or a share such as '25%'")
    return drop if drop.endswith('%') else int(drop)


def loop_arguments(args: argparse.Namespace) -> Dict[str, Any]:
    """Arguments of ``DistillationLoop`` that the command line gives.

    Args:
        args: See :func:`parse_args`.

    Returns:
        ``drops``, ``stop``, ``lora``, ``repair`` and ``scorer`` as far as
        given.

    Raises:
        ValueError: ``--drop`` is neither a number nor a share; or there are
            several limits of one kind, which only a preview can answer.
    """
    budget: Dict[str, Any] = {}
    for limit in budgets(args):
        for key in {*limit} & {*budget}:
            name = f'--max-{key.replace("_", "-")}'
            raise ValueError(f'{name} {budget[key]} {limit[key]}: expected '
                             'one value; several go with --preview')
        budget.update(limit)
    loop: Dict[str, Any] = {}
    drop = args.drop
    if drop is None and not budget and args.tolerance is None:
        drop = '25%'
    if drop is not None:
        loop['drops'] = read_drop(drop)
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
        ValueError: The given config cannot be compressed, or options do not
            go together.
        WorkDirInUse: Another run owns the folder.
    """
    check_combination(args)
    work_dir = target.parents[1]
    if args.resume and not args.preview:
        require_file(str(target), '--resume')
        with owned(work_dir):
            return
    require_file(args.config, 'config')
    require_file(args.checkpoint, 'checkpoint')
    untrained = args.preview or args.no_training
    text = compression_config(args.config, args.checkpoint, target,
                              {} if args.preview else loop_arguments(args),
                              args.blocks,
                              'feature_error' if args.calibrate else
                              args.metric, 0 if untrained else args.epochs)
    with owned(work_dir):
        write_once(text, target, args.overwrite or args.preview)


def check_combination(args: argparse.Namespace) -> None:
    """Reject options that do not go together.

    Args:
        args: See :func:`parse_args`.

    Raises:
        ValueError: Names them.
    """
    for option, value in (('--until', args.until), ('--calibrate',
                                                    args.calibrate)):
        if value is not None and not (args.preview or args.no_training):
            raise ValueError(f'{option} {value} needs --preview or '
                             '--no-training')
    if args.preview and args.no_training:
        raise ValueError('--preview --no-training: expected one of them; the '
                         'second writes a model of the first')
    if args.preview and args.drop is not None:
        raise ValueError(f'--preview --drop {args.drop}: expected --until, '
                         'the number of blocks at which it ends')


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Write the config and run it."""
    args = parse_args(argv)
    name = Path(args.config).stem
    work_dir = Path(args.work_dir or f'work_dirs/{name}_blockdrop')
    # Not in work_dir itself, where mmengine puts a copy of what it runs.
    target = work_dir / 'config' / f'{name}_blockdrop.py'
    untrained = args.preview or args.no_training
    if args.preview:
        target = work_dir / 'preview' / target.name
    try:
        prepare(args, target)
        print(f'Config: {target}', flush=True)
        if args.dry_run:
            return 0
        if untrained:
            config = write_preview_config(args, target, work_dir)
    except (FileNotFoundError, ValueError, WorkDirInUse) as error:
        print(f'compress.py: {error}', file=sys.stderr)
        return 1
    if not untrained:
        return run(args, argv, target, work_dir)
    status = run(args, argv, config, config.parent)
    if status:
        return status
    if args.preview:
        record = read_json(config.parent / 'blockdrop.json', 'preview')
        print('\n' + describe_preview(record, args.tolerance, budgets(args)))
        print('Table and picture:', work_dir / 'preview.md',
              work_dir / 'preview.png', flush=True)
        return 0
    return take_depth(target, work_dir)


def run(args: argparse.Namespace, argv: Optional[Sequence[str]], config: Path,
        work_dir: Path) -> int:
    """Run a config by ``train.py``, in one process or several.

    Args:
        args: See :func:`parse_args`.
        argv: What they were read from.
        config: The config.
        work_dir: Where the results go.

    Returns:
        Exit status.
    """
    options = [str(config), '--work-dir', str(work_dir)]
    if not (args.preview or args.no_training):  # a preview goes on by itself
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


def write_preview_config(args: argparse.Namespace, config: Path,
                         work_dir: Path) -> Path:
    """Write the config of the preview, or of the depths that one lacks.

    Without training a preview of the same model is taken up, whatever videos
    it was calibrated on.

    Args:
        args: See :func:`parse_args`.
        config: Config of a block-drop run.
        work_dir: Where ``preview.json``, table and picture go.

    Returns:
        The file.
    """
    file = work_dir / 'preview' / 'preview.py'
    cfg = Config.fromfile(config)
    until, drops, budget = args.until, None, None
    if args.no_training:
        drops, stop = cfg.train_cfg.get('drops'), cfg.train_cfg.get('stop', {})
        budget = None if 'tolerance' in stop else stop.get('budget')
    cfg = preview_config(
        cfg, work_dir, until, drops, budget, calibrate=args.calibrate)
    known = read_key(file.parent) if args.no_training else None
    if known and file.is_file() and known['model'] == preview_key(
            cfg)['model']:
        depth, cfg = cfg.train_cfg, Config.fromfile(file)
        for key in ('until', 'drops', 'budget'):
            cfg.train_cfg.pop(key, None)
            if key in depth:
                cfg.train_cfg[key] = depth[key]
    with owned(file.parent):
        cfg.dump(str(file))
    return file


def take_depth(config: Path, work_dir: Path) -> int:
    """Make the model of one depth of a preview the result of a run.

    Args:
        config: Config of the block-drop run, with its end.
        work_dir: Has the preview; the model goes there.

    Returns:
        Exit status; 1 if no depth meets what is asked for.
    """
    loop, folder = Config.fromfile(config).train_cfg, work_dir / 'preview'
    record = read_json(folder / 'blockdrop.json', 'preview')
    stop, drops = loop.get('stop', {}), loop.get('drops')
    if drops is not None:
        drops = count_drops(drops, record['depth'], 0)
    choice = choose_depth(
        preview_points(record), stop.get('tolerance'), stop.get('budget'),
        drops, record.get('higher_is_better', True))
    if choice.point is None or choice.is_full:
        print(f'compress.py: no shorter model is {choice.why}; see '
              f'{work_dir / "preview.md"}', file=sys.stderr)
        return 1
    number = int(choice.point['checkpoint'][len('round_'):-len('.pth')])
    with owned(work_dir):
        result = take_from_preview(folder, number, work_dir)
    print('Result:', result, flush=True)
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
