"""What results of the quickstart were made from."""
import hashlib
import json
from itertools import count
from pathlib import Path
from typing import Dict, Sequence

from mmblockdrop.utils.io import whole_file

from mmengine.config import Config

RECORD = 'made_from.json'
#: What stays: it does not depend on what the results were made from.
KEPT = ('cache', 'baseline.py', 'blockdrop.py')


def set_aside_unless_same(work: Path, configs: Sequence[str],
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
              f'results are in {aside} now, everything is made anew.',
              flush=True)
    with whole_file(work / RECORD) as partial:
        partial.write_text(json.dumps(expected, indent=1))


def fingerprint(configs: Sequence[str], annotations: Path) -> Dict[str, str]:
    """Digest of everything that decides the results.

    Args:
        configs: Configs, with what they inherit.
        annotations: Annotations.

    Returns:
        Name of the file to SHA-256.
    """
    contents = {c: Config.fromfile(c).pretty_text.encode() for c in configs}
    contents[annotations.name] = annotations.read_bytes()
    return {
        Path(name).name: hashlib.sha256(content).hexdigest()
        for name, content in contents.items()
    }


def _read(path: Path) -> Dict[str, str]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
