"""Version of mmblockdrop, kept apart so that it can be read without import."""

__version__ = '0.1.0'
