"""Let configs inherit from ours by ``_base_ = 'mmblockdrop::...'``.

Defect: mmengine 0.10.7 knows a closed table of packages whose configs can be
named so, and looks for an editable installation in the wrong folder. It also
writes the name of the package as scope into every dict, and does not find the
classes of mmengine and mmaction2 there.

Patch: add our package to the table, and answer for our package only where it
lies. Our configs name the scope of our classes themselves, so none is written
into them. It works wherever mmblockdrop was imported before the config is
read, as in the programs under ``tools``.

Unnecessary with: a release of mmengine whose table can be extended. None is
published.
"""
from pathlib import Path
from types import ModuleType
from typing import Optional, Tuple

from .importing import after_import

PACKAGE = 'mmblockdrop'


def _extend_table(utils: ModuleType) -> None:
    utils.MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)


def _answer_for_ours(config: ModuleType) -> None:
    is_installed = config.is_installed
    get_installed_path = config.get_installed_path
    config.is_installed = (
        lambda package: package == PACKAGE or is_installed(package))
    config.get_installed_path = (
        lambda package: str(Path(__file__).parents[1])
        if package == PACKAGE else get_installed_path(package))
    find = config.Config._get_cfg_path

    def without_our_scope(cfg_path: str,
                          filename: str) -> Tuple[str, Optional[str]]:
        path, scope = find(cfg_path, filename)
        return path, None if scope == PACKAGE else scope

    config.Config._get_cfg_path = staticmethod(without_our_scope)


def patch() -> None:
    """Wait for mmengine's config module."""
    after_import('mmengine.config.utils', _extend_table)
    after_import('mmengine.config.config', _answer_for_ours)
