"""Load the weights of a pretrained backbone, all of them or none."""
from typing import Dict

from mmblockdrop.compression import DroppedBlock
from mmblockdrop.utils.checkpoint import (compare_states, read_checkpoint,
                                          state_dict_of)

from mmengine.logging import print_log
from torch import Tensor, nn

#: Patch projections of the original releases of VideoMAE.
ORIGINAL = ('patch_embed.proj.weight', 'encoder.patch_embed.proj.weight',
            'backbone.patch_embed.proj.weight')
#: In the names of adapters.
ADAPTER = '.adapter.'
CONVERTER = 'tools/model_converters/videomae_to_mmblockdrop.py'
#: Image transformers by name, mmpretrain's checkpoints.
FRAME_ENCODERS = {
    f'dinov2-{size}': 'https://download.openmmlab.com/mmpretrain/v1.0/dinov2/'
    f'vit-{size}-p14_dinov2-pre_3rdparty_{release}.pth'
    for size, release in (('small', '20230426-5641ca5a'),
                          ('base', '20230426-ba246503'))
}
#: Channels of a head of attention, in all vision transformers of these names.
HEAD = 64


def load_pretrained(backbone: nn.Module, checkpoint: str) -> None:
    """Load the weights of a backbone, also from the file of a recognizer.

    LoRA may be attached already and keeps its values, and so do adapters
    where the file holds none. Weights of blocks that are dropped, and of what
    stands beside the backbone, are passed over. An image transformer of
    mmpretrain resizes the positions to its own grid.

    Args:
        backbone: A video transformer with mmaction2's names, or an image
            encoder of mmpretrain.
        checkpoint: File or URL, of mmaction2 or mmpretrain, or converted.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is missing, unexpected or of another shape, or the
            file has the names of the original releases. Nothing has been
            loaded then.
    """
    state = _weights(checkpoint)
    own = {
        name.replace('.base_layer.', '.'): value
        for name, value in backbone.state_dict().items()
        if '.lora_' not in name
    }
    dropped = tuple(f'{name}.' for name, module in backbone.named_modules()
                    if isinstance(module, DroppedBlock))
    state = {k: v for k, v in state.items() if not k.startswith(dropped)}
    for name in ('fc_norm.weight', 'fc_norm.bias'):
        if getattr(backbone, 'return_feat_map', False) and name in own:
            state.setdefault(name, own[name])  # not used by feature maps
    if hasattr(backbone, '_prepare_pos_embed'):
        state.pop('mask_token', None)  # used in pretraining only
        if 'pos_embed' in state:
            backbone._prepare_pos_embed(state, '')
    if not any(ADAPTER in name for name in state):
        own = {k: v for k, v in own.items() if ADAPTER not in k}
    difference = compare_states(own, state)
    if difference:
        raise ValueError(
            f'backbone.pretrained={checkpoint!r} does not fit '
            f'{type(backbone).__name__}: {difference.describe()}')
    backbone.load_state_dict(state, strict=False)
    print_log(f'Loaded {len(own)} entries of the backbone from {checkpoint}',
              'current')


def _weights(checkpoint: str) -> Dict[str, Tensor]:
    """State dict of the backbone in a checkpoint."""
    try:
        state = state_dict_of(
            read_checkpoint(checkpoint, 'backbone.pretrained'))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{error}; weights of the original releases are to be converted '
            f'with {CONVERTER}') from None
    if any(name in state for name in ORIGINAL):
        raise ValueError(
            f'backbone.pretrained={checkpoint!r} has the names of the '
            f'original releases of VideoMAE: convert it with {CONVERTER}')
    inside = {
        k.removeprefix('backbone.'): v
        for k, v in state.items() if k.startswith('backbone.')
    }
    return inside or state


def frame_encoder_config(checkpoint: str, image_size: int) -> dict:
    """Config of a frozen ``FrameEncoder`` for pretrained weights.

    Width, depth and patch size are read off the weights.

    Args:
        checkpoint: File or URL of a ``VisionTransformer`` of mmpretrain whose
            heads have 64 channels, such as those in ``FRAME_ENCODERS``.
        image_size: Height and width of a frame in pixels; the nearest
            multiple of a patch below is taken.

    Returns:
        The config; ``encoder.img_size`` is the size that was taken.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or is of another encoder.
    """
    state = _weights(checkpoint)
    try:
        width, _, patch, _ = state['patch_embed.projection.weight'].shape
        hidden = state['layers.0.ffn.layers.0.0.weight'].shape[0]
    except KeyError as error:
        raise ValueError(
            f'backbone.pretrained={checkpoint!r} has no {error}: expected the '
            'weights of a VisionTransformer of mmpretrain') from None
    depth = 1 + max(
        int(name.split('.')[1]) for name in state if name[:7] == 'layers.')
    scaled = any(name.endswith('.gamma1.weight') for name in state)
    return dict(
        type='mmblockdrop.FrameEncoder',
        encoder=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=width,
                num_layers=depth,
                num_heads=max(width // HEAD, 1),
                feedforward_channels=hidden),
            img_size=image_size // patch * patch,
            patch_size=patch,
            layer_scale_init_value=1e-5 if scaled else 0.,
            out_type='raw',
            frozen_stages=depth),
        pretrained=checkpoint)
