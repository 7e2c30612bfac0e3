"""Test a checkpoint with the config that it was trained with."""
import argparse
from typing import Optional, Sequence

from mmblockdrop.compression import record_of
from mmblockdrop.structures.grid_rate import follow_grid
from mmblockdrop.utils.checkpoint import read_checkpoint
from mmblockdrop.utils.config import type_name
from mmblockdrop.utils.messages import require_file

from command_line import add_arguments, build_runner, read_config
from mmengine.config import Config


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line, which has the arguments of mmaction2's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='where logs and metrics go')
    parser.add_argument(
        '--dump', help='write the predictions into this .pkl file')
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
        ValueError: ``--dump`` does not name a pickle file.
        FileNotFoundError: There is no such checkpoint; names the nearest.
    """
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.dump is not None:
        if not args.dump.endswith(('.pkl', '.pickle')):
            raise ValueError(f'--dump={args.dump!r}: expected a name that '
                             'ends with .pkl or .pickle')
        evaluators = cfg.test_evaluator
        if not isinstance(evaluators, (list, tuple)):
            evaluators = [evaluators]
        cfg.test_evaluator = [
            *evaluators,
            dict(type='DumpResults', out_file_path=args.dump)
        ]
    require_file(args.checkpoint, 'checkpoint')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    return cfg


def follow_checkpoint(cfg: Config) -> Config:
    """Let a checkpoint decide on the shape of the model and on the grid.

    A compressed one shapes the model, whatever config tests it: without the
    hook mmengine would load what fits and leave the dropped blocks at random
    values. The test data get the ``sample_fps`` of the training.

    Args:
        cfg: ``load_from`` is set; changed in place.

    Returns:
        The same config.

    Raises:
        ValueError: The checkpoint is damaged, or its record is.
    """
    checkpoint = read_checkpoint(cfg.load_from)
    follow_grid((cfg.get('test_dataloader') or {}).get('dataset'),
                (checkpoint.get('meta') or {}).get('dataset_meta'))
    record = record_of(checkpoint, f'checkpoint={cfg.load_from!r}')
    hooks = list(cfg.get('custom_hooks') or [])
    if record is not None and 'BlockDropHook' not in map(type_name, hooks):
        hook = dict(type='mmblockdrop.BlockDropHook', stack=record['stack'])
        cfg.custom_hooks = [*hooks, hook]
    return cfg


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Test."""
    args = parse_args(argv)
    cfg = merge_args(read_config(args), args)
    build_runner(follow_checkpoint(cfg)).test()


if __name__ == '__main__':
    main()
