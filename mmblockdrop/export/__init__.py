"""A compressed model as files that stand for themselves.

Removed blocks are absent, the others are renumbered, and the config
builds the shorter model. Where the architecture is one of mmaction2's, the
files need nothing of this project.
"""
from .files import export_model, summary
from .renumber import renumber
from .runtime import ExportError, example_inputs, network, to_onnx, write_onnx

__all__ = [
    'ExportError', 'example_inputs', 'export_model', 'network', 'renumber',
    'summary', 'to_onnx', 'write_onnx'
]
