"""Formats of annotations, one file each."""
from . import activitynet, boris, cvat, elan, label_studio, table, thumos, via
from .base import (COLUMNS, FORMATS, READERS, TIMING, AnnotationFile,
                   Annotations, Options, measure, register)

__all__ = [
    'COLUMNS', 'FORMATS', 'READERS', 'TIMING', 'AnnotationFile',
    'Annotations', 'Options', 'activitynet', 'boris', 'cvat', 'elan',
    'label_studio', 'measure', 'register', 'table', 'thumos', 'via'
]
