"""What a run cost and what came out: numbers, tables and pictures."""
from mmblockdrop.utils.empty_weights import empty_weights

from .complexity import complexity, latency_ms, measure
from .figures import draw_scores, draw_tradeoff
from .table import markdown_table, round_table, write_report

__all__ = [
    'complexity', 'draw_scores', 'draw_tradeoff', 'empty_weights',
    'latency_ms', 'markdown_table', 'measure', 'round_table', 'write_report'
]
