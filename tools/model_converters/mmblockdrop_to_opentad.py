"""Convert a localizer into a detector of OpenTAD, such as AdaTAD."""
import argparse
from typing import Optional, Sequence

import mmblockdrop  # applies its patches

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of mmblockdrop')
    parser.add_argument('config', help='config of its localizer')
    parser.add_argument('target', nargs='?', help='file to write')
    parser.add_argument(
        '--check', action='store_true', help='report only, write nothing')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings of the config to replace, as key=value')
    args = parser.parse_args(argv)
    if args.check == (args.target is not None):
        parser.error('give either a file to write or --check')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert, or only report.

    Raises:
        ValueError: The checkpoint does not fit the config.
    """
    args = parse_args(argv)
    from mmblockdrop.convert import (detector_for_opentad, read_checkpoint,
                                     save_checkpoint)
    from mmblockdrop.utils.config import localizer_config
    from mmblockdrop.utils.messages import require_file
    require_file(args.config, 'config')
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    converted, report = detector_for_opentad(
        read_checkpoint(args.source), localizer_config(cfg), args.source)
    print(report.text())
    report.check()
    if not args.check:
        save_checkpoint(converted, args.target, args.source)
        print(f'wrote {args.target}')


if __name__ == '__main__':
    main()
