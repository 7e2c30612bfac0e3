"""Subclasses that repeat defects of the published code.

For exact comparison with numbers of the code that the authors of Progressive
Block Drop published, and for nothing else. Each docstring says what that code
does, why it is wrong and what it changes. No other part of the package
imports this one.
"""
