"""A compressed model as files that stand for themselves.

The dropped blocks are gone, the others are numbered anew, and the config
builds the shorter model. Where the architecture is one of mmaction2's, the
files need nothing of this project.
"""
from .files import export_model
from .inputs import example_inputs, network
from .renumber import ExportError, renumber
from .runtime import to_onnx

__all__ = [
    'ExportError', 'example_inputs', 'export_model', 'network', 'renumber',
    'to_onnx'
]
