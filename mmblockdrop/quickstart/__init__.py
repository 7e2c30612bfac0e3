"""From videos to a compressed localizer, a table and pictures."""
from .steps import DEMO, ConfigPair, StepFailed, quickstart

__all__ = ['DEMO', 'ConfigPair', 'StepFailed', 'quickstart']
