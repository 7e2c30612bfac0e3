"""Whether a checkpoint fits the blocks of a model."""
from typing import Any, Collection, Dict, List, Sequence

from torch import Tensor


def check_fit(own: Dict[str, Tensor], checkpoint: Dict[str, Any],
              paths: Sequence[str]) -> None:
    """Refuse a checkpoint that leaves blocks unloaded.

    mmengine loads without strictness, and says no more than a warning.

    Args:
        own: State dict of the localizer.
        checkpoint: What was read from the file.
        paths: Dotted paths of the blocks.

    Raises:
        ValueError: It does not fit; lists the keys.
    """
    given = checkpoint.get('state_dict', checkpoint)
    given = {k.removeprefix('module.'): v for k, v in given.items()}
    problems = find_problems(own, given, paths)
    if any(problems.values()):
        detail = '; '.join(f'{len(keys)} {kind}: {", ".join(keys[:3])}'
                           for kind, keys in problems.items() if keys)
        found = 'one' if 'blockdrop' in checkpoint.get('meta', {}) else 'none'
        raise ValueError(
            'The checkpoint does not fit the blocks of '
            f'{paths[0] if len(paths) == 1 else list(paths)!r}: {detail}. A '
            'compressed checkpoint carries its record in '
            f"meta['blockdrop']; this one has {found}.")


def find_problems(own: Dict[str, Tensor], given: Dict[str, Tensor],
                  paths: Sequence[str]) -> Dict[str, List[str]]:
    """Compare two state dicts inside the blocks.

    Args:
        own: State dict of the localizer.
        given: That of a checkpoint.
        paths: Dotted paths of the blocks.

    Returns:
        Keys that are missing, unexpected and reshaped.
    """
    parts = tuple(f'{p}.' for p in paths)
    inside = sorted(k for k in {*own, *given} if k.startswith(parts))
    return dict(
        missing=[
            k for k in inside if k not in given and not _is_fresh(k, given)
        ],
        unexpected=[
            k for k in inside if k not in own and _wrapped(k) not in own
        ],
        reshaped=[
            f'{k} {tuple(given[k].shape)} instead of {tuple(own[k].shape)}'
            for k in inside
            if k in own and k in given and own[k].shape != given[k].shape
        ])


def _wrapped(key: str) -> str:
    """Name of a plain layer's parameter once LoRA wraps the layer."""
    layer, _, name = key.rpartition('.')
    return f'{layer}.base_layer.{name}'


def _is_fresh(key: str, given: Collection[str]) -> bool:
    """Whether a LoRA key stands over a plain layer of the checkpoint."""
    for part in ('.base_layer.', '.lora_A.', '.lora_B.'):
        if part in key:
            return f'{key.split(part)[0]}.weight' in given
    return False
