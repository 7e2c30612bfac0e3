"""Reject, at import, versions that mmblockdrop does not work with."""
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, Optional, Tuple

from packaging.specifiers import SpecifierSet


class Requirement(NamedTuple):
    """One package and the versions of it that work.

    Args:
        module: What is imported.
        distributions: Names it is published under, the one to recommend first.
        wanted: Versions that work, as pip writes them.
    """

    module: str
    distributions: Tuple[str, ...]
    wanted: str


PYTHON = '>=3.10'
#: The window of mmcv is that of mmaction2 1.2.0. MMEngine 0.11.0rc0 resolves
#: ``mmaction::`` one folder too high and loads checkpoints without a check.
REQUIREMENTS = (
    Requirement('torch', ('torch', ), '>=2.1'),
    Requirement('mmengine', ('mmengine', 'mmengine-lite'), '>=0.10.7,<0.11'),
    Requirement('mmcv', ('mmcv-lite', 'mmcv'), '>=2.0.0rc4,<2.2'),
    Requirement('mmaction', ('mmaction2', ), '>=1.2.0,<1.3'),
)


def installed_version(requirement: Requirement) -> Optional[str]:
    """Version of a package, read from its metadata where it has any.

    Args:
        requirement: The package.

    Returns:
        The version; None where the package is not installed.
    """
    for name in requirement.distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    try:  # a checkout on PYTHONPATH has no metadata
        return importlib.import_module(requirement.module).__version__
    except ModuleNotFoundError:
        return None


def check_versions() -> None:
    """Compare what is installed with what works.

    Raises:
        ImportError: If a package is missing or outside its window. The text
            names each of them and the command that installs it.
    """
    wrong = []
    python = '.'.join(str(part) for part in sys.version_info[:3])
    if python not in SpecifierSet(PYTHON):
        wrong.append(f'Python{PYTHON}, found {python}')
    for requirement in REQUIREMENTS:
        found = installed_version(requirement)
        wanted = SpecifierSet(requirement.wanted, prereleases=True)
        if found is not None and found in wanted:
            continue
        name = requirement.distributions[0]
        wrong.append(f'{name}{requirement.wanted}, '
                     f'found {found or "none"}: '
                     f"pip install '{name}{requirement.wanted}'")
    if wrong:
        raise ImportError('mmblockdrop needs ' + '\nand '.join(wrong))
