"""Load the weights of a trained encoder, or refuse them by name."""
import difflib
from pathlib import Path
from typing import Dict

from mmblockdrop.compression import DroppedBlock

from mmengine.logging import print_log
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor, nn

#: Patch projections of the original releases of VideoMAE.
ORIGINAL = ('patch_embed.proj.weight', 'encoder.patch_embed.proj.weight',
            'backbone.patch_embed.proj.weight')
CONVERTER = 'tools/model_converters/videomae_to_mmblockdrop.py'


def load_pretrained(encoder: nn.Module, checkpoint: str) -> None:
    """Load an encoder's weights from a file of an encoder or recognizer.

    LoRA may be attached already and keeps what it has. Blocks that are
    dropped, and what stands beside the encoder, are passed over.

    Args:
        encoder: A video transformer with mmaction2's names.
        checkpoint: File or URL, of mmaction2 or converted.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is missing, unexpected or of another shape, or the
            file has the names of the original releases. Nothing has been
            loaded then.
    """
    state = _weights(checkpoint)
    own = {
        name.replace('.base_layer.', '.'): value
        for name, value in encoder.state_dict().items()
        if '.lora_' not in name
    }
    gone = tuple(f'{name}.' for name, module in encoder.named_modules()
                 if isinstance(module, DroppedBlock))
    state = {k: v for k, v in state.items() if not k.startswith(gone)}
    for name in ('fc_norm.weight', 'fc_norm.bias'):
        if getattr(encoder, 'return_feat_map', False) and name in own:
            state.setdefault(name, own[name])  # not used by feature maps
    problems = dict(
        missing=sorted(set(own) - set(state)),
        unexpected=sorted(set(state) - set(own)),
        reshaped=[
            f'{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}'
            for k in sorted(set(own) & set(state))
            if state[k].shape != own[k].shape
        ])
    if any(problems.values()):
        detail = '; '.join(
            f'{len(keys)} {kind}: {", ".join(keys[:3])}'
            f'{", ..." if len(keys) > 3 else ""}'
            for kind, keys in problems.items() if keys)
        raise ValueError(
            f'backbone.pretrained={checkpoint!r} does not fit the backbone of '
            f'the config: {detail}')
    encoder.load_state_dict(state, strict=False)
    print_log(f'Loaded {len(own)} entries of the encoder from {checkpoint}',
              'current')


def _weights(checkpoint: str) -> Dict[str, Tensor]:
    try:
        content = _load_checkpoint(checkpoint, map_location='cpu')
    except FileNotFoundError:
        folder = Path(checkpoint).parent
        there = [str(path) for path in sorted(folder.glob('*'))]
        near = difflib.get_close_matches(checkpoint, there, n=1)
        hint = f'did you mean {near[0]!r}?' if near else (
            'download the weights, and convert those of the original '
            f'releases with {CONVERTER}')
        raise FileNotFoundError(f'backbone.pretrained={checkpoint!r} does '
                                f'not exist; {hint}') from None
    state = content.get('state_dict', content.get('model', content))
    state = state.get('module', state)
    state = {k.removeprefix('module.'): v for k, v in state.items()}
    if any(name in state for name in ORIGINAL):
        raise ValueError(
            f'backbone.pretrained={checkpoint!r} has the names of the '
            f'original releases of VideoMAE: convert it with {CONVERTER}')
    inside = {
        k.removeprefix('backbone.'): v
        for k, v in state.items() if k.startswith('backbone.')
    }
    return inside or state
