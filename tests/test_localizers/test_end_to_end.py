"""An encoder in front of localizers of mmaction2 that stay as they are."""
import copy
import json

from mmblockdrop.localizers import SnippetClassHead
from mmblockdrop.localizers.mmaction2.bridge import (ProposalFile,
                                                     best_actions,
                                                     to_proposal_sample)
from mmblockdrop.localizers.mmaction2.class_head import segment_mean
from mmblockdrop.registry import MODELS

import numpy as np
import pytest
import torch
import toy
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

T = 6
SIZES = dict(
    BMN=dict(
        type='BMN',
        temporal_dim=T,
        boundary_ratio=.5,
        num_samples=4,
        num_samples_per_bin=2,
        feat_dim=16,
        hidden_dim_1d=8,
        hidden_dim_2d=8,
        hidden_dim_3d=8,
        soft_nms_alpha=.4,
        soft_nms_low_threshold=.5,
        soft_nms_high_threshold=.9,
        post_process_top_k=20),
    TEM=dict(
        type='TEM',
        temporal_dim=T,
        boundary_ratio=.1,
        tem_feat_dim=16,
        tem_hidden_dim=8,
        tem_match_threshold=.5),
    TCANet=dict(
        type='TCANet',
        feat_dim=16,
        se_sample_num=4,
        action_sample_num=8,
        temporal_dim=T,
        window_size=3,
        lgte_num=2))
HEAD = dict(
    type='mmblockdrop.SnippetClassHead',
    in_channels=16,
    num_classes=2,
    feat_channels=8)


def end_to_end(name='ActionFormer', **overrides):
    """Config of the toy encoder in front of a localizer."""
    plain = toy.localizer()
    localizer = copy.deepcopy(SIZES.get(name)) or dict(
        {k: v for k, v in plain.items()
         if k not in ('backbone', 'clip_frames', 'data_preprocessor')},
        window_size=toy.STEPS)
    cfg = dict(
        type='mmblockdrop.EndToEndLocalizer',
        localizer=localizer,
        backbone=plain['backbone'],
        clip_frames=toy.CLIP,
        data_preprocessor=plain['data_preprocessor'])
    cfg.update(overrides)
    return cfg


def build(*args, **kwargs):
    init_default_scope('mmaction')
    torch.manual_seed(0)
    return MODELS.build(end_to_end(*args, **kwargs))


def proposal_file(folder):
    """The action of each toy video of the tests, and the whole video."""
    results = {}
    for sample in toy.batch(2)['data_samples']:
        action, = sample.video_segments.tolist()
        results[sample.video_name] = [
            dict(segment=action, score=.9),
            dict(segment=[0., 8.], score=.4)
        ]
    path = folder / 'proposals.json'
    path.write_text(json.dumps(dict(results=results)))
    return str(path)


def data_of(model, length=2):
    return model.data_preprocessor(toy.batch(length), False)


@pytest.mark.parametrize('name', ['BMN', 'TEM', 'TCANet', 'ActionFormer'])
def test_losses_reach_the_encoder_and_predictions_are_seconds(name, tmp_path):
    settings = {}
    if name == 'TCANet':
        settings['proposals'] = proposal_file(tmp_path)
    if name == 'BMN':
        settings['class_head'] = HEAD
    model = build(name, **settings)
    data = data_of(model)
    losses = model(**data, mode='loss')
    sum(v.sum() for k, v in losses.items() if 'loss' in k).backward()
    grads = [p.grad for p in model.backbone.blocks.parameters()]
    assert any(g is not None and g.abs().sum() > 0 for g in grads)
    model.eval()
    with torch.no_grad():
        found = model(**data, mode='predict')
        model(**data, mode='tensor')
    assert len(found) == 2
    for sample in found:
        if name == 'TEM':
            assert sample.curves.shape == (T, 5)
            continue
        pred = sample.pred_instances
        assert len(pred.segments) and pred.segments.min() >= 0
        assert pred.segments.max() <= sample.duration + 1e-4
        assert ('labels' in pred) == (name in ('BMN', 'ActionFormer'))


def test_localizer_is_unchanged():
    """The same localizer on the same features says the same."""
    model = build('BMN').eval()
    data = data_of(model, 1)
    with torch.no_grad():
        feats = model.extract_feat(data['inputs'])
        assert feats.shape == (1, 16, T)
        sample = to_proposal_sample(data['data_samples'][0], 16)
        plain = model.localizer(list(feats), [sample], mode='predict')[0]
        found = model(**data, mode='predict')[0].pred_instances
    per_step = data['data_samples'][0].snippet_stride / data['data_samples'][
        0].fps
    segments = np.array([p['segment'] for p in plain['proposal_list']])
    np.testing.assert_allclose(found.segments, segments * per_step, rtol=1e-5)


def test_windows_look_like_videos():
    sample = toy.batch(1)['data_samples'][0]
    sample.gt_instances.segments = torch.tensor([[1., 4.]])
    found = to_proposal_sample(sample, 16)
    assert found.gt_instances.gt_bbox.tolist() == [[.125, .5]]
    assert found.duration_second == 8 and found.duration_frame == 128
    assert found.video_name == sample.video_name
    proposals = torch.tensor([[0., .5, .9], [.6, 1., .8]])
    matched = to_proposal_sample(sample, 16, proposals)
    assert matched.gt_instances.gt_bbox.tolist() == [[.125, .5], [0, 0]]
    sample.gt_instances = sample.gt_instances[:0]
    assert to_proposal_sample(sample).gt_instances.gt_bbox.max() < 0


def test_best_action_of_each_proposal():
    boxes = torch.tensor([[0., .3], [.5, .9]])
    proposals = torch.tensor([[.1, .4, 1.], [.4, 1., 1.], [.31, .4, 1.]])
    assert best_actions(proposals, boxes).tolist() == [
        boxes[0].tolist(), boxes[1].tolist(), [0, 0]
    ]


@pytest.mark.parametrize('name', ['BMN', 'TEM'])
def test_windows_without_actions_teach_no_nonsense(name):
    model = build(name, class_head=HEAD)
    data = data_of(model)
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model(**data, mode='loss')
    assert losses['loss'] == 0 and losses['loss_class'] > 0
    sum(losses.values()).backward()
    assert model.localizer.state_dict().keys() and all(
        p.grad is not None for p in model.localizer.parameters()
        if p.requires_grad)


def test_class_head_by_hand():
    values = torch.tensor([[0., 1., 0., 1.]])
    segments = torch.tensor([[0., 4.], [1., 2.], [.5, 1.5], [1.5, 1.5],
                             [3., 9.]])
    assert segment_mean(values, segments).flatten().tolist() == (
        pytest.approx([.5, 1., .5, 1., 1.]))
    head = SnippetClassHead(4, 3, feat_channels=4, topk=2)
    target = head.targets(
        torch.tensor([[1., 3.], [4.6, 4.8]]), torch.tensor([2, 0]), 6)
    assert target.tolist() == [[0, 0, 0, 0, 1, 0], [0] * 6,
                               [0, 1, 1, 0, 0, 0]]
    logits = torch.full((3, 6), -20.)
    logits[2, 1:3] = 20.
    index, scores, labels = head.best_classes(logits, torch.tensor([[1., 3.]]),
                                          torch.tensor([.5]))
    assert index.tolist() == [0, 0] and labels[0] == 2
    assert scores[0] == pytest.approx(.5)


@pytest.mark.parametrize('encoder', ['image', 'clip'])
def test_other_encoders(encoder):
    if encoder == 'image':
        settings = dict(
            frame_wise=True,
            backbone=dict(
                type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=2,
                stem_channels=2))
        width = 16
    else:
        settings = dict(
            clip_frames=8,
            backbone=dict(
                type='ResNet3dSlowOnly', depth=18, pretrained=None,
                base_channels=4, num_stages=3, out_indices=(2, ),
                spatial_strides=(1, 2, 2), temporal_strides=(1, 1, 1),
                dilations=(1, 1, 1), conv1_kernel=(1, 3, 3),
                conv1_stride_t=1, pool1_stride_t=1, inflate=(0, 0, 0)))
        width = 16
    model = build('BMN', **settings)
    feats = model.extract_feat(data_of(model, 1)['inputs'])
    assert feats.shape == (1, width, T)


def test_errors_name_the_key(tmp_path):
    localizer = dict(SIZES['BMN'], feat_dim=400)
    model = build('BMN', localizer=localizer)
    with pytest.raises(ValueError, match='feat_dim=400.*16 channels'):
        model(**data_of(model), mode='loss')
    model = build('TCANet')
    with pytest.raises(ValueError, match='set model.proposals'):
        model(**data_of(model), mode='loss')
    model = build('TCANet', proposals=proposal_file(tmp_path))
    model.bridge.proposals.videos.clear()
    with pytest.raises(ValueError, match='does not know video'):
        model(**data_of(model), mode='loss')
    with pytest.raises(ValueError, match='temporal_size'):
        build('BMN', localizer=dict(type='mmblockdrop.FocalLoss'))
    with pytest.raises(FileNotFoundError, match='model.proposals'):
        ProposalFile(tmp_path / 'none.json')
    (tmp_path / 'list.json').write_text('[]')
    with pytest.raises(ValueError, match='results'):
        ProposalFile(tmp_path / 'list.json')


def agree(module, **kwargs):
    return dict(
        type='mmblockdrop.ModuleAlignment',
        module=f'localizer.{module}',
        **dict(dict(loss=dict(type='mmblockdrop.BinaryKLLoss')), **kwargs))


def test_end_to_end_bmn_loses_a_block_and_keeps_its_map(tmp_path):
    """Rounds on raw frames, aligned on features, map and curves; classes by
    the head, mAP by our metric."""
    localizer = end_to_end('BMN', class_head=HEAD)
    torch.save(
        dict(state_dict=build('BMN', class_head=HEAD).state_dict(), meta={}),
        tmp_path / 'trained.pth')
    cfg = toy.block_drop(
        tmp_path / 'run',
        tmp_path / 'trained.pth',
        drops=1,
        epochs_per_round=1,
        lora=None,
        model=dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=localizer,
            checkpoint=str(tmp_path / 'trained.pth'),
            alignments=dict(
                block=dict(type='mmblockdrop.BlockAlignment'),
                confidence=agree('x_2d_p', mask='localizer.bm_mask'),
                start=agree('x_1d_s', mask='valid_steps'),
                end=agree('x_1d_e'))))
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader, cfg.train_cfg.score_dataloader):
        loader.dataset.length = 2
    cfg.val_evaluator = cfg.test_evaluator = dict(
        type='mmblockdrop.TADMetric', tiou_thresholds=[.1])
    cfg.log_level = 'ERROR'
    cfg = Config(cfg.to_dict(), format_python_code=False)  # yapf is slow
    runner = Runner.from_cfg(cfg)
    runner.train()
    record = json.loads((tmp_path / 'run/blockdrop.json').read_text())
    assert record['finished'] and len(record['rounds'][0]['dropped']) == 1
    assert record['rounds'][0]['macs'] < record['baseline']['macs']


@MODELS.register_module()
class WholeBatches(BaseModel):
    """A localizer of another project that reads windows as they are."""
    reads_windows = True
    window_size = T

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.seen = mode, torch.stack(inputs).shape, data_samples
        return dict(loss=inputs[0].sum()) if mode == 'loss' else data_samples


def test_a_localizer_may_read_windows_as_they_are():
    model = build(localizer=dict(type='mmblockdrop.WholeBatches'))
    data = data_of(model)
    for mode in ('loss', 'predict', 'tensor'):
        model(**data, mode=mode)
        assert model.localizer.seen == (mode, (2, 16, T),
                                        data['data_samples'])


@pytest.mark.parametrize('name', ['BMN', 'ActionFormer'])
def test_unknown_modes_are_errors(name):
    model = build(name)
    with pytest.raises(ValueError, match="mode='train'.*'predict'"):
        model(**data_of(model), mode='train')


def test_samples_of_mmaction2_pass_through():
    """Features and samples that BMN reads itself; outputs for ANetMetric."""
    model = build('BMN', backbone=None, data_preprocessor=None).eval()
    sample = ActionDataSample()
    sample.gt_instances = InstanceData(gt_bbox=torch.tensor([[.2, .7]]))
    sample.set_metainfo(
        dict(video_name='v_a', duration_second=9., duration_frame=96))
    inputs = [torch.rand(16, 2 * T)]
    assert model.bridge.read(model.localizer, [sample])[0] is sample
    losses = model(inputs, [sample], mode='loss')
    assert list(losses) == ['loss'] and losses['loss'] > 0
    with torch.no_grad():
        found, = model(inputs, [sample], mode='predict')
    assert found['video_name'] == 'v_a' and found['proposal_list']
    with pytest.raises(ValueError, match='set model.backbone'):
        model([torch.rand(1, 3, 4, 8, 8)], [sample], mode='loss')
