"""A detector and data of a few units, for whole runs within seconds."""
from typing import Any, Dict, List

from mmblockdrop.registry import DATASETS

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

FRAMES, SIZE, CLIP, DEPTH, CLASSES = 16, 16, 8, 4, 2
STEPS = FRAMES // 2


@DATASETS.register_module()
class ToyVideos(Dataset):
    """Windows in which bright stretches are actions.

    Args:
        length: Number of videos, one window each.
        seed: Seed of their content.
    """

    metainfo = dict(classes=['dim', 'bright'])

    def __init__(self, length: int = 6, seed: int = 0) -> None:
        self.samples = [self._make(seed * 1000 + i) for i in range(length)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        return self.samples[index]

    @staticmethod
    def _make(seed: int) -> Dict[str, Any]:
        rng = np.random.default_rng(seed)
        frames = rng.integers(0, 60, (3, FRAMES, SIZE, SIZE))
        start = int(rng.integers(0, STEPS - 3))
        segment = np.array([[start, start + 3]], dtype=np.float32)
        label = int(rng.integers(0, CLASSES))
        frames[:, 2 * start:2 * (start + 3)] += 60 + 120 * label
        sample = ActionDataSample()
        sample.gt_instances = InstanceData(
            segments=torch.from_numpy(segment), labels=torch.tensor([label]))
        fps = 2.
        sample.set_metainfo(
            dict(
                video_name=f'toy_{seed}',
                duration=FRAMES / fps,
                fps=fps,
                total_frames=FRAMES,
                window_start_frame=0,
                snippet_stride=2,
                offset_frames=0,
                window_size=STEPS,
                valid_steps=STEPS,
                video_segments=segment * 2 / fps,
                video_labels=np.array([label])))
        inputs = torch.from_numpy(frames).to(torch.uint8)[None]
        return dict(inputs=inputs, data_samples=sample)


def localizer(**backbone: Any) -> Dict[str, Any]:
    """Config of the toy localizer.

    Args:
        **backbone: Overrides arguments of the backbone.

    Returns:
        Config.
    """
    return dict(
        type='mmblockdrop.ActionFormer',
        window_size=STEPS,
        clip_frames=CLIP,
        data_preprocessor=dict(
            type='mmaction.ActionDataPreprocessor',
            mean=[60.] * 3,
            std=[60.] * 3,
            format_shape='NCTHW'),
        backbone=dict(
            dict(
                type='mmblockdrop.LoRAViT',
                img_size=SIZE,
                patch_size=8,
                embed_dims=16,
                depth=DEPTH,
                num_heads=2,
                num_frames=CLIP), **backbone),
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=16,
            out_channels=16,
            arch=(1, 1, 1),
            num_heads=2,
            path_drop=0.),
        neck=dict(
            type='mmblockdrop.FPNIdentity',
            in_channels=16,
            out_channels=16,
            num_levels=2),
        head=dict(
            type='mmblockdrop.ActionFormerHead',
            num_classes=CLASSES,
            in_channels=16,
            num_convs=1,
            strides=[1, 2]))


def loader(length: int, seed: int, train: bool = False) -> Dict[str, Any]:
    """Config of a dataloader over toy videos.

    Args:
        length: Number of videos.
        seed: Seed of their content.
        train: Shuffle.

    Returns:
        Config.
    """
    return dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=train),
        dataset=dict(type='mmblockdrop.ToyVideos', length=length, seed=seed))


def config(work_dir: Any, **overrides: Any) -> Config:
    """Config of a run that trains the toy localizer.

    Args:
        work_dir: Work directory.
        **overrides: Top-level keys to set.

    Returns:
        The config.
    """
    evaluator = dict(type='mmblockdrop.TADMetric', tiou_thresholds=[0.3, 0.5])
    cfg = dict(
        default_scope='mmaction',
        work_dir=str(work_dir),
        model=localizer(),
        train_dataloader=loader(8, 0, train=True),
        val_dataloader=loader(5, 1),
        test_dataloader=loader(5, 1),
        train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=5e-3),
            clip_grad=dict(max_norm=1.)),
        param_scheduler=[
            dict(
                type='CosineAnnealingLR',
                T_max=2,
                by_epoch=True,
                convert_to_iter_based=True)
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=100),
            checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0),
        log_level='WARNING',
        visualizer=dict(type='Visualizer', vis_backends=None))
    cfg.update(overrides)
    return Config(cfg)


def block_drop(work_dir: Any, checkpoint: str, drops: int = 2,
               **overrides: Any) -> Config:
    """Config of a block-drop run from a toy checkpoint.

    Args:
        work_dir: Work directory.
        checkpoint: The trained toy localizer.
        drops: Blocks to drop.
        **overrides: Entries of ``train_cfg`` to set, or top-level keys.

    Returns:
        The config.
    """
    top = {
        k: overrides.pop(k)
        for k in list(overrides) if k in ('custom_hooks', 'model', 'resume',
                                          'model_wrapper_cfg', 'launcher')
    }
    settings = dict(
        model=dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=localizer(),
            checkpoint=str(checkpoint)),
        train_cfg=dict(
            dict(
                type='mmblockdrop.DistillationLoop',
                drops=drops,
                epochs_per_round=2,
                scorer=dict(type='mmblockdrop.MetricScorer'),
                score_dataloader=loader(5, 0),
                lora=dict(rank=4)), **overrides),
        custom_hooks=[dict(type='mmblockdrop.BlockDropHook')])
    return config(work_dir, **{**settings, **top})


def batch(length: int = 2, seed: int = 3) -> Dict[str, List[Any]]:
    """One collated batch, as a dataloader gives it.

    Args:
        length: Samples.
        seed: Seed of their content.

    Returns:
        ``inputs`` and ``data_samples``.
    """
    samples = list(ToyVideos(length, seed).samples)
    return dict(
        inputs=[s['inputs'] for s in samples],
        data_samples=[s['data_samples'] for s in samples])
