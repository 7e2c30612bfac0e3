"""What a run cost and what came out: numbers, tables and pictures."""
from .complexity import compare_latency, complexity, latency_ms, measure
from .figures import draw_scores, draw_tradeoff
from .table import cost_cells, round_table, write_report
from .text import markdown_table

__all__ = [
    'compare_latency', 'complexity', 'cost_cells', 'draw_scores',
    'draw_tradeoff', 'latency_ms', 'markdown_table', 'measure', 'round_table',
    'write_report'
]
