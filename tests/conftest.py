"""Fixtures shared by all tests."""
import json
import os
from pathlib import Path
from typing import Any, Callable

import mmblockdrop  # noqa: F401  (first: it mends the stack)
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
#: Recorded numbers that every clone holds. The whole detector and the scores
#: recorded from it are too large for that.
EXCERPT = ROOT / 'tests' / 'data' / 'golden'


def golden_folder() -> Path:
    """Folder of recorded numbers: ``GOLDEN_DIR``, shared, or the copy."""
    if 'GOLDEN_DIR' in os.environ:
        return Path(os.environ['GOLDEN_DIR'])
    shared = ROOT.parent / 'shared' / 'golden'
    return shared if shared.is_dir() else EXCERPT


@pytest.fixture(scope='session')
def golden() -> Callable[[str], Any]:
    """Load one file of the golden folder by name."""

    def load(name: str) -> Any:
        path = golden_folder() / name
        if path.parent == EXCERPT and not path.exists():
            pytest.skip(f'{name} is not in this clone: set GOLDEN_DIR to a '
                        'folder that holds the recorded numbers')
        if path.suffix == '.json':
            return json.loads(path.read_text())
        return torch.load(path, weights_only=True)

    return load
