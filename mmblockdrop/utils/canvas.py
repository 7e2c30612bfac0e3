"""Figures of matplotlib without a display.

Each has its own Agg canvas: the state of ``pyplot`` stays as it is.
"""
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .io import PathLike


def canvas(width: float, height: float) -> Figure:
    """Figure with its own Agg canvas.

    Args:
        width: Inches.
        height: Inches.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(width, height), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: PathLike) -> Path:
    """Write a figure; folders are made.

    Args:
        figure: The figure.
        path: PNG to write.

    Returns:
        The same path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
