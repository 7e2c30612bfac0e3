"""What train.py and test.py share: arguments and reading the config."""
import argparse
import os
import os.path as osp
from typing import Any

from mmblockdrop.utils.messages import require_file

from mmengine.config import Config, DictAction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that both programs have.

    Args:
        parser: Has the program's own arguments.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings of the config to replace, as key=value; a list as '
        'key="[a,b]" or key=a,b, without white space')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how several processes are started; "pytorch" works without GPU')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_config(args: argparse.Namespace) -> Config:
    """Read the config and settle launcher and working directory.

    The working directory is, in this order, ``--work-dir``, the config's
    ``work_dir``, or ``work_dirs/`` and the config's file name.

    Args:
        args: ``config``, ``work_dir``, ``launcher``, ``local_rank`` and
            ``cfg_options``.

    Returns:
        The config, ``--cfg-options`` not yet merged.

    Raises:
        FileNotFoundError: There is no such config; names the nearest.
    """
    require_file(args.config, 'config')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('work_dirs', name)
    return cfg


def build_runner(cfg: Config) -> Any:
    """Build the config's runner.

    Args:
        cfg: ``runner_type`` names a registered runner; without it the runner
            is mmengine's, with a shorter console.

    Returns:
        The runner, which loads checkpoints strictly.
    """
    from mmblockdrop.utils.console import ConsoleRunner

    from mmengine.registry import RUNNERS
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = ConsoleRunner.from_cfg(cfg)
    runner.register_hook(dict(type='mmblockdrop.StrictLoadHook'))
    return runner
