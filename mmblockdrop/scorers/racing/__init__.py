"""Scoring that lets candidates leave before all data were seen."""
from .scorer import RacingScorer

__all__ = ['RacingScorer']
