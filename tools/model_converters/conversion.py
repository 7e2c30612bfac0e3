"""What the converters share: arguments, the config's localizer, the file."""
import argparse
from typing import Any, Dict, Optional, Sequence

import mmblockdrop  # applies its patches

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope


def add_config(parser: argparse.ArgumentParser, text: str) -> None:
    """Add a config and its options.

    Args:
        parser: Has ``source``.
        text: What the config is.
    """
    parser.add_argument('config', help=text)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings of the config to replace, as key=value')


def parse(parser: argparse.ArgumentParser,
          argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Add ``target`` and ``--check``, and read the command line.

    Args:
        parser: Has everything else.
        argv: None for ``sys.argv``.

    Returns:
        The arguments; either ``target`` or ``check`` is given.
    """
    parser.add_argument('target', nargs='?', help='file to write')
    parser.add_argument(
        '--check', action='store_true', help='report only, write nothing')
    args = parser.parse_args(argv)
    if args.check == (args.target is not None):
        parser.error('give either a file to write or --check')
    return args


def localizer_of(args: argparse.Namespace) -> Dict[str, Any]:
    """Read the localizer of the config.

    Args:
        args: With what :func:`add_config` added.

    Returns:
        Its config.
    """
    from mmblockdrop.utils.config import localizer_config
    from mmblockdrop.utils.messages import require_file
    require_file(args.config, 'config')
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    return localizer_config(cfg)


def finish(converted: Dict[str, Any], report: Any,
           args: argparse.Namespace) -> None:
    """Print the report, and write the file unless ``--check`` was given.

    Args:
        converted: Content of the file.
        report: A ``ConversionReport``.
        args: See :func:`parse`.

    Raises:
        ValueError: The source does not fit.
    """
    from mmblockdrop.convert import save_checkpoint
    print(report.text())
    report.check()
    if not args.check:
        save_checkpoint(converted, args.target, args.source)
        print(f'wrote {args.target}')
