"""Progressive block drop for temporal action detection models."""
from . import compat
from .version import __version__

__all__ = ['__version__']

compat.check_versions()
compat.apply()
