"""Stand-in for the localizer DRN, which the wheel of mmaction2 lacks.

Defect: the folder ``mmaction/models/localizers/drn`` has no ``__init__.py``,
so the wheel of mmaction2 1.2.0 leaves it out, and ``import mmaction.models``
fails with ``No module named 'mmaction.models.localizers.drn'``
(open-mmlab/mmaction2 issue 2714).

Unnecessary with: the first wheel of mmaction2 that contains the folder. None
is published; 1.2.0 is the newest. A source checkout contains it, and the
stand-in then stays away.
"""
from types import ModuleType

from .importing import stand_in

PACKAGE = 'mmaction.models.localizers.drn'


def _write_package(module: ModuleType) -> None:
    """The package itself holds nothing."""


def _write_drn(module: ModuleType) -> None:
    """Register a ``DRN`` that says why it cannot be built."""
    from mmaction.registry import MODELS

    @MODELS.register_module()
    class DRN:
        """Explains, when constructed, where to get the real one."""

        def __init__(self, *args, **kwargs) -> None:
            raise ImportError(
                'DRN is missing from the installed wheel of mmaction2. '
                'Install mmaction2 from source: pip install '
                'git+https://github.com/open-mmlab/mmaction2@v1.2.0 '
                'and add an empty mmaction/models/localizers/drn/__init__.py')

    module.DRN = DRN  # type: ignore[attr-defined]


def patch() -> None:
    """Offer the stand-in to the import system."""
    stand_in(PACKAGE, _write_package, is_package=True)
    stand_in(f'{PACKAGE}.drn', _write_drn)
