"""Let a copied work directory resume from itself.

Defect: ``last_checkpoint`` holds the path of the checkpoint where it was
written, and mmengine 0.10.7 goes there. The copy of a work directory resumes
from the original folder without a word, or fails once that is gone. A note
of zero bytes, which a power cut leaves, is an error.

Patch: of the note only the name of the file counts, in the folder of the note
itself. A broken note stands for the newest whole file. A checkpoint that
``CheckpointHook(out_dir=...)`` has written elsewhere is still found.

Unnecessary with: a release of mmengine that looks beside the note. Neither
0.10.7 nor 0.11.0rc0 does.
"""
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Optional

from .importing import after_import

NOTE = 'last_checkpoint'


def find_beside_note(folder: str) -> Optional[str]:
    """Find the newest checkpoint that a training has written.

    Args:
        folder: Its work directory.

    Returns:
        The path; None if there is none.
    """
    note = Path(folder) / NOTE
    if not note.is_file():
        return None
    named = Path(note.read_text(errors='replace').strip().strip('\0'))
    beside = note.parent / named.name
    if beside.is_file():
        return str(beside)
    if named.name and named.is_file() and not (named.parent / NOTE).exists():
        return str(named)  # of out_dir, which holds no note
    whole = [
        path for pattern in ('epoch_*.pth', 'iter_*.pth')
        for path in note.parent.glob(pattern) if zipfile.is_zipfile(path)
    ]
    newest = max(whole, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else str(newest)


def _look_beside_note(checkpoint: ModuleType) -> None:
    checkpoint.find_latest_checkpoint = (  # type: ignore[attr-defined]
        find_beside_note)


def patch() -> None:
    """Wait for mmengine's checkpoint module."""
    after_import('mmengine.runner.checkpoint', _look_beside_note)
