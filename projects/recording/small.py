"""Sizes, weights and clips of the small set, from seeds."""
import copy
from typing import Any, Dict, List, Tuple

import torch
import torch.nn.functional as F
from published import build
from torch import Tensor

Given = Dict[str, Any]

#: Sizes of the two detectors of the small set. Depth and number of levels of
#: the first are those of the full set, whose training rules name its layers.
THUMOS = dict(
    width=24, depth=6, heads=4, patch=8, img_size=32, pixels=24, rank=6,
    clips=3, steps=48, arch=[2, 2, 3], strides=[1, 2, 4, 8], classes=4)
ANET = dict(
    width=16, depth=3, heads=2, patch=8, img_size=32, pixels=16, rank=4,
    clips=6, steps=48, arch=[2, 1, 2], strides=[1, 2, 4], classes=1)


def shrink(config: Dict[str, Any], size: Dict[str, Any]) -> Dict[str, Any]:
    """Give a published detector config other sizes.

    Args:
        config: Config of a recorded detector.
        size: ``THUMOS`` or ``ANET``.

    Returns:
        The smaller config.
    """
    config = copy.deepcopy(config)
    width = size['width']
    vit, custom = config['backbone']['backbone'], config['backbone']['custom']
    vit.update(
        img_size=size['img_size'], patch_size=size['patch'],
        embed_dims=width, depth=size['depth'], num_heads=size['heads'])
    if 'lora_rank' in vit:
        vit['lora_rank'] = size['rank']
    for step in (*custom['pre_processing_pipeline'],
                 *custom['post_processing_pipeline']):
        if 't1' in step:
            step['t1'] = size['clips']
        if 'size' in step:
            step['size'] = size['steps']
    config['projection'].update(
        in_channels=width, out_channels=width, arch=size['arch'],
        max_seq_len=size['steps'])
    config['projection']['attn_cfg']['n_head'] = size['heads']
    config['neck'].update(
        in_channels=width, out_channels=width,
        num_levels=len(size['strides']))
    edges = [0, *(4 * s for s in size['strides'][:-1]), 10000]
    config['rpn_head'].update(
        num_classes=size['classes'], in_channels=width, feat_channels=width)
    config['rpn_head']['prior_generator'].update(
        strides=size['strides'],
        regression_range=[list(x) for x in zip(edges, edges[1:])])
    return config


def draw(name: str, value: Tensor) -> Tensor:
    """A random value at which every part of a detector matters."""
    noise = torch.randn(value.shape)
    if name.endswith('pos_embed'):
        return value.clone()
    if name.endswith('loss_normalizer'):
        return torch.tensor(63.27)
    if name.endswith('reg_head.bias'):
        return torch.full_like(value, 1.5)
    if name.endswith('cls_head.bias'):
        return -1.3 + 0.35 * noise
    if 'drop_path' in name:
        return 0.5 + 0.2 * noise
    if 'rpn_head.scale' in name:
        return 1 + 0.1 * noise
    if 'lora_' in name:
        return (0.2 if name.endswith('.A') else 0.12) * noise
    if value.dim() < 2:
        return 0.2 * noise + (name.endswith('weight') and 'norm' in name
                              or '.ln' in name and name.endswith('weight'))
    return 1.3 * noise / value[0].numel()**0.5


def checkpoint(config: Dict[str, Any]) -> Given:
    """Live and averaged weights in the published layout.

    Args:
        config: Config of the student.

    Returns:
        ``epoch``, ``state_dict`` and ``state_dict_ema``.
    """
    own = build(config).state_dict()
    live = {name: draw(name, value) for name, value in own.items()}
    averaged = {
        name: value + 0.08 * value.std() * torch.randn(value.shape)
        if value.dim() and not name.endswith('pos_embed') else value.clone()
        for name, value in live.items()
    }
    averaged['rpn_head.loss_normalizer'] = torch.tensor(57)
    return dict(
        epoch=42,
        state_dict={f'module.{k}': v
                    for k, v in live.items()},
        state_dict_ema=averaged)


def film(count: int, frames: int, height: int, width: int) -> Tensor:
    """Videos of moving patches of light.

    Args:
        count: Videos.
        frames: Frames of each.
        height: Pixels.
        width: Pixels.

    Returns:
        Uint8 ``[count, 1, 3, frames, height, width]``.
    """
    coarse = torch.randn(count, 3, max(frames // 6, 2), 3, 3)
    smooth = F.interpolate(
        coarse, (frames, height, width), mode='trilinear', align_corners=True)
    noise = 5 * torch.randn(smooth.shape)
    return (128 + 70 * smooth + noise).clamp(0, 255).byte()[:, None]


def windows(steps: int) -> Tuple[List[Dict[str, Any]], Tensor]:
    """Metainfo and masks of two windows, the second with padding."""
    metas = [
        dict(video_name='vid_a', fps=29.97, duration=81.3, snippet_stride=4,
             window_start_frame=512, window_size=steps, offset_frames=0),
        dict(video_name='vid_b', fps=25.0, duration=30.04, snippet_stride=4,
             window_start_frame=576, window_size=steps, offset_frames=0)
    ]
    masks = torch.arange(steps) < torch.tensor([[steps], [steps - 13]])
    return metas, masks


def thumos_like(config: Dict[str, Any]) -> Given:
    """What the first detector is given."""
    size = THUMOS
    frames = 16 * size['clips']
    metas, masks = windows(size['steps'])
    return dict(
        checkpoint=checkpoint(config),
        classes=[f'cls_{i}' for i in range(size['classes'])],
        inputs=film(2, frames, size['pixels'], size['pixels']),
        inputs_native=film(1, frames, size['img_size'], size['img_size']),
        masks_native=masks[1:],
        masks=masks,
        metas=metas,
        gt_segments=[
            torch.tensor([[3., 9.5], [8., 27.], [30.25, 45.], [20., 22.5]]),
            torch.tensor([[1., 6.], [10., 33.]])
        ],
        gt_labels=[torch.tensor([0, 3, 1, 2]).int(),
                   torch.tensor([2, 0]).int()])


def anet_like(config: Dict[str, Any]) -> Given:
    """What the second detector is given: videos resized to one window."""
    size = ANET
    steps = size['steps']
    length = torch.full((2, steps), True)
    return dict(
        checkpoint=checkpoint(config),
        inputs=film(2, 16 * size['clips'], size['pixels'], size['pixels']),
        masks=length,
        metas=[
            dict(video_name=name, fps=-1, duration=duration,
                 resize_length=steps)
            for name, duration in (('v_a', 123.4), ('v_b', 47.05))
        ],
        gt_segments=[
            torch.tensor([[2., 23.], [26.5, 45.]]),
            torch.tensor([[0., 48.]])
        ],
        gt_labels=[torch.tensor([0, 0]).int(), torch.tensor([0]).int()])


def scoring_clips(classes: List[str]) -> Given:
    """Clips on which candidates are scored, one window each."""
    steps, stride = THUMOS['steps'], 4
    lengths = (47, 45, 42, 48, 33, 44)
    names = [f'train_{i}' for i in range(len(lengths))]
    videos = film(len(names), 16 * THUMOS['clips'], 16, 24)
    masks = torch.arange(steps) < torch.tensor(lengths)[:, None]
    database = {
        name: dict(subset='training', duration=round(4 * n / 25, 2),
                   frame=4 * n, annotations=[])
        for name, n in zip(names, lengths)
    }
    return dict(
        checkpoint="pbd_detector.pt: checkpoint['state_dict']",
        annotation=dict(database=database),
        classes=classes,
        frames=dict(zip(names, videos)),
        window=steps,
        feature_stride=stride,
        num_windows=len(names),
        windows=[
            dict(video_name=name, first_frame=0, num_snippets=n)
            for name, n in zip(names, lengths)
        ],
        tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7],
        batches=[names[i:i + 2] for i in range(0, len(names), 2)],
        masks=list(masks.split(2)))
