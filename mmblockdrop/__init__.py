"""Progressive block drop for temporal action detection models."""
from .version import __version__

__all__ = ['__version__']
