"""Published configs, checkpoints and samples in the terms of this project."""
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.convert import detector_name, rename_detector

import torch
from mmengine.structures import InstanceData
from torch import Tensor

State = Dict[str, Tensor]

LORA = ('qkv', 'proj')


def our_name(name: str, lora: bool) -> str:
    """Name of a published parameter in our localizer.

    Args:
        name: Published name.
        lora: Whether our model carries LoRA on ``qkv`` and ``proj``.

    Returns:
        Our name.
    """
    return detector_name(name, LORA if lora else ())


def our_state(state: State) -> State:
    """Convert a published state dict, whatever it is part of.

    Args:
        state: Published names and values.

    Returns:
        Our names and values.
    """
    return rename_detector(state)


def merged_state(part: Dict[str, Any]) -> State:
    """Averaged weights with LoRA folded in, our names.

    Args:
        part: A dict with ``checkpoint`` and ``merged_ema_changed``.

    Returns:
        State dict of the model without LoRA.
    """
    state = part['checkpoint']['state_dict_ema']
    state = {k: v for k, v in state.items() if 'lora' not in k}
    return our_state({**state, **part['merged_ema_changed']})


def localizer_config(published: Dict[str, Any],
                     frames: Optional[int] = None,
                     drop_blocks: Sequence[int] = ()) -> Dict[str, Any]:
    """Config of our localizer for a published detector.

    Args:
        published: Config as in ``pbd_detector_config.json``.
        frames: Frames of a window, None for a localizer on features.
        drop_blocks: Blocks to leave out.

    Returns:
        Config for ``MODELS.build``.
    """
    proj, head = published['projection'], published['rpn_head']
    prior = head['prior_generator']
    config = dict(
        type='mmblockdrop.ActionFormer',
        window_size=proj['max_seq_len'],
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=proj['in_channels'],
            out_channels=proj['out_channels'],
            arch=proj['arch'],
            kernel_size=proj['conv_cfg']['kernel_size'],
            num_heads=proj['attn_cfg']['n_head'],
            window_size=proj['attn_cfg']['n_mha_win_size'],
            proj_drop=proj['conv_cfg']['proj_pdrop'],
            path_drop=proj['path_pdrop'],
            use_abs_pe=proj['use_abs_pe'],
            max_seq_len=proj['max_seq_len']),
        neck=dict(published['neck'], type='mmblockdrop.FPNIdentity'),
        head=dict(
            type='mmblockdrop.PublishedActionFormerHead',
            num_classes=head['num_classes'],
            in_channels=head['in_channels'],
            feat_channels=head['feat_channels'],
            num_convs=head['num_convs'],
            strides=prior['strides'],
            regression_ranges=prior['regression_range'],
            center_radius=head['center_sample_radius'],
            label_smoothing=head['label_smoothing'],
            prior_prob=head['cls_prior_prob'],
            reg_weight=head['loss_weight'],
            loss_normalizer=head['loss_normalizer'],
            normalizer_momentum=head['loss_normalizer_momentum']))
    if frames is not None:
        config.update(_encoder(published['backbone'], frames, drop_blocks))
    return config


def _encoder(published: Dict[str, Any], frames: int,
             drop_blocks: Sequence[int]) -> Dict[str, Any]:
    vit = dict(published['backbone'])
    rank = vit.pop('lora_rank', None)
    vit = {k: v for k, v in vit.items() if not k.startswith('cal_loss')}
    vit.pop('drop_idx', None)
    split = published['custom']['pre_processing_pipeline'][0]
    return dict(
        clip_frames=frames // split['t1'],
        data_preprocessor=published['data_preprocessor'],
        backbone=dict(
            vit,
            type='mmblockdrop.LoRAViT',
            drop_blocks=list(drop_blocks),
            lora=dict(rank=rank) if rank else None))


def load(model: torch.nn.Module, state: State) -> None:
    """Load strictly; only dropped blocks (and LoRA's base) may be left.

    Args:
        model: Localizer, with or without encoder.
        state: Our names.
    """
    missing, unexpected = model.load_state_dict(state, strict=False)
    present = tuple(model.state_dict())
    left = [
        name for name in unexpected if not name.startswith('backbone.')
        or any(key.startswith(_block(name)) for key in present)
    ]
    assert not missing and not (model.backbone and left), (missing, left)


def _block(name: str) -> str:
    parts = name.split('.')
    return '.'.join(parts[:3]) + '.' if parts[1] == 'blocks' else name


def samples(part: Dict[str, Any]) -> List[Any]:
    """Data samples of the recorded batch.

    Args:
        part: A dict with ``metas``, ``masks``, ``gt_segments`` and
            ``gt_labels``.

    Returns:
        One sample per window.
    """
    from mmaction.structures import ActionDataSample
    out = []
    for meta, mask, segments, labels in zip(part['metas'], part['masks'],
                                            part['gt_segments'],
                                            part['gt_labels']):
        meta = dict(meta, valid_steps=int(mask.sum()))
        if meta['fps'] == -1:  # the whole video on a fixed number of cells
            meta.update(
                fps=meta['resize_length'] / meta['duration'], snippet_stride=1)
        sample = ActionDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(
            segments=segments, labels=labels.long())
        out.append(sample)
    return out
