"""Repair of removed blocks in closed form, without labels and training.

A residual block adds to a stream: ``x_i = x_{i-1} + f_i(x_{i-1})``. When the
blocks behind block p are gone, the layers of block p that write into the
stream can write what is missing. Such a layer is linear in its input h, so the
best change of its weight and bias is a ridge regression,

    minimise over W, b:  mean over tokens |x + W h + b - y|^2 + ridge |W|^2

with x and h of the student as it is, and y the stream of the uncompressed
teacher behind the gap. No parameter is added, so repair costs nothing when
the model is used. Related: ReplaceMe (arXiv 2505.02819) for language models.

``places.py`` finds what can be changed, ``ridge.py`` adds up and solves,
``linear.py`` says what is fitted to what.
"""
from .linear import Change, LinearRepair, repair_plan

__all__ = ['Change', 'LinearRepair', 'repair_plan']
