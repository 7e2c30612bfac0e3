"""Weights and drop record of a localizer, from a checkpoint."""
import difflib
from pathlib import Path
from typing import Dict, Optional, Tuple

from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor, nn

from .lora import merge_lora
from .record import replay


def load_localizer(model: nn.Module, checkpoint: str) -> None:
    """Make a fresh localizer what a checkpoint holds, with LoRA merged.

    Args:
        model: Uncompressed localizer; loses the blocks that the checkpoint has
            lost.
        checkpoint: File written by mmengine.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It does not fit; lists the keys.
    """
    state, record = read_localizer(checkpoint)
    if record is not None:
        replay(model, record)
    if not any('.lora_' in key for key in state):
        merge_lora(model)
    load_whole(model, state, checkpoint)
    merge_lora(model)


def read_localizer(
        checkpoint: str) -> Tuple[Dict[str, Tensor], Optional[dict]]:
    """Read weights and drop record of a checkpoint.

    Args:
        checkpoint: File written by mmengine.

    Returns:
        State dict of the plain localizer and the record of the blocks dropped
        from it, if any.

    Raises:
        FileNotFoundError: No such file.
    """
    try:
        content = _load_checkpoint(checkpoint, map_location='cpu')
    except FileNotFoundError:
        folder = Path(checkpoint).parent
        files = [str(path) for path in sorted(folder.glob('*.pth'))]
        near = difflib.get_close_matches(str(checkpoint), files, n=1)
        hint = f'Did you mean {near[0]!r}?' if near else (
            f'{str(folder)!r} holds no similar .pth file.')
        raise FileNotFoundError(
            f'The checkpoint {str(checkpoint)!r} does not exist. '
            f'{hint}') from None
    state = content.get('state_dict', content)
    state = {
        key[len('module.'):] if key.startswith('module.') else key: value
        for key, value in state.items()
    }
    return state, content.get('meta', {}).get('blockdrop')


def load_whole(model: nn.Module, state: Dict[str, Tensor],
               source: str) -> None:
    """Load a state dict and refuse anything missing, extra or reshaped.

    Args:
        model: Model to load into.
        state: Its state dict.
        source: Where ``state`` came from, for the error.

    Raises:
        ValueError: The keys or shapes differ; nothing has been loaded.
    """
    own = model.state_dict()
    problems = {
        'missing': sorted(set(own) - set(state)),
        'unexpected': sorted(set(state) - set(own)),
        'reshaped': sorted(
            f'{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}'
            for k in set(own) & set(state) if own[k].shape != state[k].shape)
    }
    if any(problems.values()):
        detail = '; '.join(
            f'{len(keys)} {kind}: {", ".join(keys[:4])}'
            f'{", ..." if len(keys) > 4 else ""}'
            for kind, keys in problems.items() if keys)
        raise ValueError(f'{source} does not fit the localizer: {detail}')
    model.load_state_dict(state)
