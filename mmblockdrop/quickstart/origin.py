"""What results of the quickstart were made from."""
import hashlib
from itertools import count
from pathlib import Path
from typing import Dict, Sequence

from mmblockdrop.utils.io import read_json, write_json

from mmengine.config import Config

RECORD = 'made_from.json'
#: What stays: it does not depend on what the results were made from.
KEPT = ('cache', 'baseline.py', 'blockdrop.py')


def set_aside_unless_same(work: Path, configs: Sequence[Path],
                          annotations: Path) -> None:
    """Move results of other configs or annotations out of the way.

    They go to ``before_<n>`` in the same folder; results of the same ones
    stay where they are.

    Args:
        work: Folder with the results of earlier calls.
        configs: Configs that will run.
        annotations: Annotations that they will read.
    """
    found = _read(work / RECORD)
    expected = fingerprint(configs, annotations)
    changed = sorted(k for k in expected if found.get(k) != expected[k])
    old = [p for p in sorted(work.iterdir())
           if p.name not in KEPT and not p.name.startswith('before_')]
    if changed and old:
        aside = next(folder
                     for folder in (work / f'before_{n}' for n in count(1))
                     if not folder.exists())
        aside.mkdir()
        for path in old:
            path.rename(aside / path.name)
        print(f'Changed since the last call: {", ".join(changed)}. Its '
              f'results are in {aside} now, everything is computed again.',
              flush=True)
    write_json(expected, work / RECORD)


def fingerprint(configs: Sequence[Path], annotations: Path) -> Dict[str, str]:
    """Digest of everything that decides the results.

    Args:
        configs: Configs, with what they inherit.
        annotations: Annotations.

    Returns:
        Name of the file to SHA-256.
    """
    contents = {
        path: Config.fromfile(path, format_python_code=False).pretty_text
        .encode() for path in configs
    }
    contents[annotations] = annotations.read_bytes()
    return {
        path.name: hashlib.sha256(content).hexdigest()
        for path, content in contents.items()
    }


def _read(path: Path) -> Dict[str, str]:
    """Digests of an earlier call, none if the file is absent or damaged."""
    try:
        return read_json(path, 'record')
    except (OSError, ValueError):
        return {}
