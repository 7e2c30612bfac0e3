"""The localizer from inputs to detections in seconds."""
import copy
from pathlib import Path

from mmblockdrop.localizers import ActionFormer, DensePredictions
from mmblockdrop.registry import MODELS

import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'models'


@MODELS.register_module(force=True)
class ToyClipNet(nn.Module):
    """Convolution over clips; its output has the wanted number of axes."""

    def __init__(self, channels=6, axes=5, as_tuple=False):
        super().__init__()
        self.conv = nn.Conv3d(3, channels, (2, 4, 4), stride=(2, 4, 4))
        self.axes, self.as_tuple, self.calls = axes, as_tuple, 0

    def forward(self, clips):
        self.calls += 1
        x = self.conv(clips)
        x = {5: x, 3: x.mean((3, 4)), 2: x.mean((2, 3, 4)),
             4: x.mean(2)}[self.axes]
        return (x, ) if self.as_tuple else x


def config(backbone=None, **kwargs):
    return dict(
        type='mmblockdrop.ActionFormer',
        backbone=backbone,
        clip_frames=8,
        window_size=16,
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=6,
            out_channels=8,
            arch=(1, 1, 2),
            num_heads=2),
        neck=dict(
            type='mmblockdrop.FPNIdentity',
            in_channels=8,
            out_channels=8,
            num_levels=3),
        head=dict(
            type='mmblockdrop.ActionFormerHead',
            num_classes=3,
            in_channels=8,
            num_convs=1,
            strides=(1, 2, 4)),
        **kwargs)


def toy(**kwargs):
    return dict(type='mmblockdrop.ToyClipNet', **kwargs)


def sample(valid_steps=16, **meta):
    meta = dict(
        dict(
            video_name='v',
            valid_steps=valid_steps,
            window_start_frame=100,
            snippet_stride=2,
            offset_frames=1,
            fps=10.,
            duration=12.), **meta)
    out = ActionDataSample(metainfo=meta)
    out.gt_instances = InstanceData(
        segments=torch.tensor([[2., 9.]]), labels=torch.tensor([1]))
    return out


FRAMES = torch.randn(2, 1, 3, 32, 8, 8)


@pytest.mark.parametrize('backbone', [
    toy(), toy(axes=3), toy(axes=2), toy(as_tuple=True)])
def test_any_encoder_gives_the_feature_grid(backbone):
    model = MODELS.build(config(backbone))
    feats = model.extract_feat(FRAMES)
    assert feats.shape == (2, 6, 16) and feats.dtype == torch.float32
    losses = model(FRAMES, [sample(), sample(9)], mode='loss')
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_losses_are_float32_under_autocast():
    cfg = config(toy())
    cfg['projection']['window_size'] = 5
    model = MODELS.build(cfg)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(FRAMES, [sample(), sample(9)], mode='loss')
        feats = model.extract_feat(FRAMES)
    sum(losses.values()).backward()
    assert feats.dtype == torch.float32
    assert all(x.isfinite() and x.dtype == torch.float32
               for x in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_clips_follow_each_other_in_time():
    model = MODELS.build(config(toy(axes=3)))
    clips = FRAMES[:, 0].split(8, dim=2)
    expected = torch.cat([model.backbone(c) for c in clips], dim=-1)
    torch.testing.assert_close(model.extract_feat(FRAMES), expected)


def test_features_are_interpolated_without_aligned_corners():
    model = MODELS.build(config(toy(axes=2)))
    feats = torch.stack([
        model.backbone(c) for c in FRAMES[:, 0].split(8, dim=2)], -1)
    expected = nn.functional.interpolate(
        feats, 16, mode='linear', align_corners=False)
    torch.testing.assert_close(model.extract_feat(FRAMES), expected)


def test_chunks_bound_the_memory_and_change_nothing():
    model = MODELS.build(config(toy(), clip_chunk=3)).eval()
    with torch.no_grad():
        chunked = model.extract_feat(FRAMES)
    assert model.backbone.calls == 3
    torch.testing.assert_close(chunked, model.extract_feat(FRAMES))
    assert model.backbone.calls == 4


def test_detections_are_seconds_within_the_video():
    model = MODELS.build(config(test_cfg=dict(score_thr=0., pre_nms_topk=50)))
    model.eval()
    data = [sample(), sample(5, duration=11.)]
    with torch.no_grad():
        preds = model(torch.randn(2, 6, 16), data)
        out = model.add_predictions(preds, data)
    assert isinstance(preds, DensePredictions)
    assert [len(x.pred_instances) for x in out] == [50, (5 + 3 + 2) * 3]
    segments, scores = model.head.decode(preds)
    best = scores[0].max()
    point, label = (scores[0] == best).nonzero()[0]
    found = out[0].pred_instances
    assert found.scores[0] == best and found.labels[0] == label
    seconds = (segments[0, point] * 2 + 100 + 1) / 10
    torch.testing.assert_close(found.segments[0], seconds.clip(0, 12))
    for x, end in zip(out, (12, 11)):
        found = x.pred_instances
        assert (found.scores.diff() <= 0).all()
        assert found.segments.min() >= 0 and found.segments.max() <= end
        assert found.labels.dtype == torch.int64


def test_low_scores_are_left_out():
    model = MODELS.build(config(test_cfg=dict(score_thr=0.999)))
    out = model(torch.randn(1, 6, 16), [sample()], mode='predict')
    assert len(out[0].pred_instances) == 0


def test_a_list_of_short_features_is_padded():
    model = MODELS.build(config()).eval()
    x = torch.randn(6, 11)
    listed = model([x], [sample(11)])
    padded = model(nn.functional.pad(x, (0, 5))[None], [sample(11)])
    for a, b in zip(listed.cls_logits, padded.cls_logits):
        assert torch.equal(a, b)


def test_starting_values_survive_init_weights():
    model = MODELS.build(config(toy()))
    model.init_weights()
    assert model.head.cls_head.bias.sigmoid().allclose(torch.tensor(0.01))
    assert model.projection.stem[0].drop_path_mlp.scale.eq(1e-4).all()
    assert not model.projection.stem[0].attn.proj.bias.any()


def test_it_learns_one_window():
    torch.manual_seed(0)
    model = MODELS.build(config())
    data = [sample(window_start_frame=0, offset_frames=0)]
    feats = torch.randn(1, 6, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model(feats, data, mode='loss').values()).backward()
        optimizer.step()
    found = model.eval()(feats, data, mode='predict')[0].pred_instances
    assert found.labels[0] == 1 and found.scores[0] > 0.3
    torch.testing.assert_close(
        found.segments[0], torch.tensor([0.4, 1.8]), atol=0.1, rtol=0)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('actionformer*.py')),
                         ids=lambda path: path.stem)
def test_base_configs_build(path):
    cfg = Config.fromfile(path).model
    if cfg.backbone is not None:
        cfg.backbone.depth = 1
    model = MODELS.build(cfg)
    assert isinstance(model, ActionFormer)
    assert model.projection.num_levels == len(model.head.strides)


def wrong(**changes):
    cfg = config(toy())
    for key, value in changes.items():
        part = cfg
        *path, last = key.split('__')
        for name in path:
            part = part[name]
        part[last] = value
    return cfg


@pytest.mark.parametrize('cfg,message', [
    (wrong(clip_frames=12), 'clip_frames=12 .* 32 frames .* is 8'),
    (wrong(backbone__axes=4), 'return_feat_map=True'),
    (wrong(backbone__channels=7), 'in_channels=6.* 7 channels'),
])
def test_wrong_encoders_are_named(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)(FRAMES)


@pytest.mark.parametrize('cfg,message', [
    (wrong(head__strides=(1, 2)), r'len\(head.strides\) is 2, expected 3'),
    (wrong(neck__num_levels=4), 'neck.num_levels is 4, expected 3'),
    (wrong(test_cfg=dict(score=1)), "test_cfg='score'.*'score_thr'"),
])
def test_wrong_configs_are_named(cfg, message):
    with pytest.raises(Exception, match=message):
        MODELS.build(copy.deepcopy(cfg))


def test_wrong_calls_are_named():
    model = MODELS.build(config())
    with pytest.raises(ValueError, match='expected features'):
        model(FRAMES)
    with pytest.raises(ValueError, match="mode='loss' needs data_samples"):
        model(torch.randn(1, 6, 16), mode='loss')
    with pytest.raises(ValueError, match="mode='train'"):
        model(torch.randn(1, 6, 16), mode='train')
    with pytest.raises(ValueError, match='model.backbone=None'):
        MODELS.build(config(toy()))(torch.randn(1, 6, 16))
