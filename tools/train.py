"""Train, or compress, the model of a config."""
import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Optional, Sequence

from mmblockdrop.utils.config import keep_schedulers, type_name
from mmblockdrop.utils.lock import owned
from mmblockdrop.utils.messages import require_file

from command_line import add_arguments, build_runner, read_config
from mmengine.config import Config


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line, which has the arguments of mmaction2's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and models go')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a value, or with "auto", '
        'from the latest one in the working directory')
    parser.add_argument(
        '--amp', action='store_true', help='train with mixed precision (GPU)')
    parser.add_argument(
        '--no-validate', action='store_true', help='skip validation')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size')
    parser.add_argument('--seed', type=int, help='random seed')
    parser.add_argument(
        '--diff-rank-seed',
        action='store_true',
        help='give each process a seed of its own')
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='use deterministic algorithms only')
    add_arguments(parser)
    return parser.parse_args(argv)


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Write the arguments into the config.

    Args:
        cfg: Changed in place.
        args: What ``parse_args`` returned.

    Returns:
        The same config.

    Raises:
        ValueError: An argument does not fit the config.
        FileNotFoundError: There is no file that ``--resume`` names.
    """
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.setdefault('type', 'OptimWrapper')
        wrapper = type_name(cfg.optim_wrapper)
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ValueError(
                f'optim_wrapper.type={wrapper!r}: --amp turns OptimWrapper '
                'into AmpOptimWrapper and no other')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None
        if args.resume != 'auto':
            require_file(args.resume, '--resume')
            cfg.load_from = args.resume
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise ValueError(
                f'{args.config} has no auto_scale_lr: --auto-scale-lr needs '
                'auto_scale_lr=dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
    cfg.randomness = dict(dict(seed=None), **cfg.get('randomness', {}))
    for key in ('seed', 'diff_rank_seed', 'deterministic'):
        if getattr(args, key) not in (None, False):
            cfg.randomness[key] = getattr(args, key)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    return cfg


def require_accelerator(cfg: Config) -> None:
    """Check that mixed precision has a device for it.

    Args:
        cfg: The config, with the arguments in it.

    Raises:
        ValueError: There is none.
    """
    from mmengine.device import get_device
    if type_name(cfg.get('optim_wrapper')) == 'AmpOptimWrapper' and (
            get_device() in ('cpu', 'mps')):
        raise ValueError(
            f'optim_wrapper.type={cfg.optim_wrapper.type!r}: mixed precision '
            'needs a GPU and there is none; without --amp, or with '
            "optim_wrapper.type='OptimWrapper', training runs on the CPU")


def resume_from_here(cfg: Config, load_from: Optional[str]) -> None:
    """Resume from the newest whole checkpoint of the work directory itself.

    The path in ``last_checkpoint`` is that of the folder where it was
    written, which may have been copied. Rounds of block drop look for their
    checkpoint themselves, when the run begins.

    Args:
        cfg: Config with ``resume=True``; changed.
        load_from: What it begins from where there is nothing to resume from.
    """
    from mmblockdrop.rounds.resume import RECORD, last_point
    work_dir = Path(cfg.work_dir)
    if (work_dir / RECORD).exists():
        return
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')
    others = [Path(out_dir) / work_dir.name] if out_dir else []
    point = last_point(work_dir, None, others)
    if point is None:
        print(f'{work_dir} holds no checkpoint to resume from: the run '
              'begins from the start.')
        cfg.resume = False
        cfg.load_from = load_from
    else:
        cfg.load_from = str(point)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train."""
    args = parse_args(argv)
    cfg = read_config(args)
    load_from = cfg.get('load_from')
    cfg = merge_args(cfg, args)
    require_accelerator(cfg)
    keep_schedulers(cfg)
    with ExitStack() as stack:
        if args.launcher == 'none':
            stack.enter_context(owned(cfg.work_dir))
        if args.resume == 'auto':
            resume_from_here(cfg, load_from)
        runner = build_runner(cfg)
        stack.enter_context(owned(runner.work_dir))
        from mmblockdrop.data.prepare.run_check import check_run
        check_run(runner)
        runner.train()


if __name__ == '__main__':
    main()
