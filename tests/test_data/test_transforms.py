"""Our transforms beside those of mmaction2."""
from mmblockdrop.registry import TRANSFORMS

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS as MMENGINE_MODELS
from tiny_videos import PIPELINE, frame_numbers


@pytest.mark.parametrize('middle, shape', [
    ([dict(type='Resize', scale=(24, 20), keep_ratio=False)], (20, 24)),
    ([dict(type='Resize', scale=(-1, 20)),
      dict(type='CenterCrop', crop_size=16)], (16, 16)),
    ([dict(type='RandomResizedCrop'),
      dict(type='Resize', scale=(16, 16), keep_ratio=False)], (16, 16)),
    ([dict(type='Flip', flip_ratio=1)], (32, 32)),
    ([dict(type='ColorJitter', brightness=0.5)], (32, 32)),
])
def test_mmaction_transforms_in_between(build, middle, shape):
    middle = [dict(cfg, type=f"mmaction.{cfg['type']}") for cfg in middle]
    dataset = build(dict(a=dict()),
                    pipeline=[*PIPELINE[:3], *middle, *PIPELINE[3:]])
    dataset.set_epoch(0)
    first, again = dataset[0]['inputs'], dataset[0]['inputs']
    assert first.shape == (1, 3, 16, *shape)
    assert torch.equal(first, again)  # their draws follow the seed as well


def test_mmaction_may_open_the_video(build):
    pipeline = [dict(type='mmaction.DecordInit'), *PIPELINE[1:]]
    dataset = build(dict(a=dict()), test_mode=True, pipeline=pipeline)
    assert frame_numbers(dataset[0]['inputs']).tolist() == list(range(16))


def test_batch_through_the_preprocessor(build):
    import mmaction.models.data_preprocessors
    preprocessor = MMENGINE_MODELS.build(
        dict(type='mmaction.ActionDataPreprocessor', mean=[0.] * 3,
             std=[255.] * 3, format_shape='NCTHW'))
    dataset = build({name: dict() for name in 'ab'})
    batch = preprocessor(pseudo_collate([dataset[0], dataset[1]]), True)
    assert batch['inputs'].shape == (2, 1, 3, 16, 32, 32)
    assert batch['inputs'].dtype == torch.float32
    assert 0.9 < batch['inputs'].max() <= 1
    assert [sample.video_name for sample in batch['data_samples']] == [
        'a', 'b']


def test_scale_decodes_fewer_frames(build):
    dataset = build(dict(a=dict(frames=40)), test_mode=True,
                    snippet_stride=4, frames_per_step=1, overlap_ratio=0.25)
    assert frame_numbers(dataset[0]['inputs']).tolist() == list(
        range(0, 32, 4))


def test_rate_of_the_file_is_compared(build, root, logged):
    folder = root(dict(a=dict(fps=10.)))
    dataset = build(data_root=folder, fps=25., windows='random')
    dataset[0], dataset[0]
    assert len(logged) == 1 and 'its annotation says 25.000' in logged[0]


def test_layout_is_checked():
    with pytest.raises(ValueError, match="layout='NC'"):
        TRANSFORMS.build(dict(type='mmblockdrop.LoadFeatures', layout='NC'))
