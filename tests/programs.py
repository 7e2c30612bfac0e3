"""Programs under tools, as modules."""
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).resolve().parents[1] / 'tools'


def load_program(name: str) -> ModuleType:
    """Import a program without running it.

    Args:
        name: Its file below ``tools``, without ``.py``.

    Returns:
        The module; it has ``main``.
    """
    path = TOOLS / f'{name}.py'
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(
            f'program_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)
