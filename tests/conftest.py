"""Fixtures shared by all tests."""
import copy
import io
import json
import lzma
import os
from pathlib import Path
from typing import Any, Callable, Dict, List

import mmblockdrop  # applies its patches

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
#: Recorded numbers that every clone holds; see its README.
SMALL = ROOT / 'tests' / 'data' / 'golden'


def golden_folder() -> Path:
    """Folder of recorded numbers: ``GOLDEN_DIR``, shared, or the clone's."""
    if 'GOLDEN_DIR' in os.environ:
        return Path(os.environ['GOLDEN_DIR'])
    shared = ROOT.parent / 'shared' / 'golden'
    return shared if shared.is_dir() else SMALL


def read_golden(folder: Path, name: str) -> Any:
    """Read one file of recorded numbers, compressed or not.

    Args:
        folder: Folder of recorded numbers.
        name: File name without ``.xz``.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: The folder lacks the file.
    """
    path = folder / name
    if path.is_file():
        content = path.read_bytes()
    elif path.with_name(f'{name}.xz').is_file():
        content = lzma.decompress(path.with_name(f'{name}.xz').read_bytes())
    else:
        raise FileNotFoundError(
            f'{folder} has neither {name} nor {name}.xz; GOLDEN_DIR must name '
            f'a folder that holds every file of {SMALL}')
    if path.suffix == '.json':
        return json.loads(content)
    return torch.load(io.BytesIO(content), weights_only=True)


@pytest.fixture(scope='session')
def golden() -> Callable[[str], Any]:
    """Load one file of the golden folder by name."""
    return lambda name: read_golden(golden_folder(), name)


def seeds_folder() -> Path:
    """Folder of AdaTAD's numbers and others': as :func:`golden_folder`."""
    if 'GOLDEN_SEEDS_DIR' in os.environ:
        return Path(os.environ['GOLDEN_SEEDS_DIR'])
    shared = ROOT.parent / 'shared' / 'golden_seeds'
    return shared if shared.is_dir() else SMALL.with_name('golden_seeds')


@pytest.fixture(scope='session')
def golden_seeds() -> Callable[[str], Any]:
    """Load one file of the numbers of AdaTAD and other systems by name."""
    return lambda name: read_golden(seeds_folder(), name)


@pytest.fixture(params=['recorded', 'without the figures of the paper'])
def macs_table(golden, request, tmp_path) -> Dict[str, List[dict]]:
    """Recorded costs by model; also of a folder that lacks the paper's.

    The paper prints costs of two models only, so a folder that holds others
    has rows without ``paper_gmacs``.
    """
    table = golden('macs_table.json')
    if request.param != 'recorded':
        name, rows = next(iter(table['models'].items()))
        rows = copy.deepcopy(rows[:2])
        rows[0]['paper_gmacs'] = None
        rows[1].pop('paper_gmacs', None)
        (tmp_path / 'macs_table.json').write_text(
            json.dumps(dict(table, models={name: rows})))
        table = read_golden(tmp_path, 'macs_table.json')
    return table['models']
