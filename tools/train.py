"""Train, or compress, the model of a config."""
import argparse
from typing import Optional, Sequence

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
        wrapper = cfg.optim_wrapper.setdefault('type', 'OptimWrapper')
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


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train."""
    args = parse_args(argv)
    runner = build_runner(merge_args(read_config(args), args))
    from mmblockdrop.data.prepare.run_check import check_run
    check_run(runner)
    runner.train()


if __name__ == '__main__':
    main()
