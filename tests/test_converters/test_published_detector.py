"""Published detectors become ours and compute what they computed."""
from mmblockdrop.apis import init_localizer
from mmblockdrop.convert import (convert_detector, detector_for_opentad,
                                 detector_name)
from mmblockdrop.registry import MODELS

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from parity_weights import localizer_config, merged_state, our_name, samples

pytestmark = pytest.mark.parity

FEATURE, GRID, SCORE = 1e-4, 2e-4, 1e-5


@pytest.fixture(scope='module')
def part(golden):
    MMLogger.get_instance('mmengine', log_level='ERROR')
    return golden('pbd_detector.pt')


@pytest.fixture(scope='module')
def configs(golden):
    return golden('pbd_detector_config.json')


@pytest.fixture(scope='module')
def plain(part, configs):
    """Config of our localizer as a user writes it: whole, without LoRA."""
    return localizer_config(configs['baseline_cp'], part['inputs'].shape[3])


def through_a_file(converted, report, config, tmp_path):
    """Load a converted checkpoint as a user does."""
    report.check()
    path = tmp_path / 'converted.pth'
    torch.save(converted, path)
    return init_localizer(Config(dict(model=config)), str(path), 'cpu')


def without(state, drops):
    """A checkpoint without some blocks."""
    gone = tuple(f'backbone.model.backbone.blocks.{i}.' for i in drops)
    return {
        k: v
        for k, v in state.items() if not k.removeprefix('module.').startswith(
            gone)
    }


def same_outputs(model, part, gold):
    frames = model.data_preprocessor(
        dict(inputs=list(part['inputs']), data_samples=None))['inputs']
    data = samples(part)
    with torch.no_grad():
        feats = model.extract_feat(frames)
        preds = model(frames, data)
    close([feats], [gold['backbone_feat']], FEATURE)
    segments, scores = model.head.decode(preds)
    valid = model.head.flatten(preds).valid
    close([x[v] for x, v in zip(segments, valid)], gold['proposals'], GRID)
    close([x[v] for x, v in zip(scores, valid)], gold['scores'], SCORE)


def close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_students_live_and_averaged(part, plain, tmp_path):
    for gold in part['student'].values():
        drops = gold['drop_idx']
        content = {
            name: without(part['checkpoint'][name], drops)
            for name in ('state_dict', 'state_dict_ema')
        }
        for weights, wanted in (('live', gold), ('ema', gold['ema'])):
            converted, report = convert_detector(
                content, plain, weights=weights)
            assert report.dropped == drops
            model = through_a_file(converted, report, plain, tmp_path)
            same_outputs(model, part, wanted)


def test_whole_checkpoint_defaults_to_averaged_weights(part, plain, tmp_path):
    converted, report = convert_detector(part['checkpoint'], plain)
    assert report.layout.endswith('ema weights') and not report.dropped
    assert len(report.renamed) > 0 and report.fits
    assert converted['meta']['published_epoch'] == part['checkpoint']['epoch']
    model = through_a_file(converted, report, plain, tmp_path)
    same_outputs(model, part, part['baseline_lora_ema'])


def test_back_to_the_published_names(part, plain):
    content = part['checkpoint']
    converted, _ = convert_detector(content, plain)
    back, report = detector_for_opentad(converted, plain)
    report.check()
    for entry in ('state_dict', 'state_dict_ema'):
        assert back[entry].keys() == content[entry].keys()
    for name, value in content['state_dict_ema'].items():
        torch.testing.assert_close(
            back['state_dict_ema'][name], value.float(), check_dtype=False)


def test_merging_lora(part, plain, tmp_path):
    converted, report = convert_detector(
        part['checkpoint'], plain, merge_lora=True)
    for name, value in merged_state(part).items():
        torch.testing.assert_close(
            converted['state_dict'][name], value.float(), rtol=0, atol=1e-6)
    model = through_a_file(converted, report, plain, tmp_path)
    same_outputs(model, part, part['baseline_cp'])


def test_merged_file_without_lora(part, plain):
    state = part['checkpoint']['state_dict_ema']
    merged = {k: v for k, v in state.items() if 'lora' not in k}
    merged.update(part['merged_ema_changed'])
    converted, report = convert_detector(dict(state_dict=merged), plain)
    assert report.fits and 'blockdrop' not in converted['meta']
    bare, report = convert_detector(merged, plain)
    assert report.fits
    assert bare['state_dict'].keys() == converted['state_dict'].keys()


def test_alpha_reaches_the_update(part, configs, plain):
    content = part['checkpoint']
    rank = configs['student']['backbone']['backbone']['lora_rank']
    merged = [
        convert_detector(content, plain, merge_lora=True, alpha=a)[0]
        for a in (0., 1., 2.)
    ]
    name = 'backbone.blocks.0.attn.qkv.weight'
    zero, one, two = (m['state_dict'][name] for m in merged)
    torch.testing.assert_close(two - zero, 2 * (one - zero))
    kept, _ = convert_detector(content, plain, alpha=2.)
    assert kept['meta']['blockdrop']['lora']['alpha'] == 2. * rank
    config = dict(
        plain, backbone=dict(plain['backbone'], lora=dict(rank=rank)))
    scaled, report = convert_detector(content, config, alpha=2.)
    assert report.fits
    b = 'backbone.blocks.0.attn.qkv.lora_B.default.weight'
    torch.testing.assert_close(scaled['state_dict'][b],
                               2 * kept['state_dict'][b])


def test_other_rank_is_rejected(part, plain):
    config = dict(plain, backbone=dict(plain['backbone'], lora=dict(rank=1)))
    with pytest.raises(ValueError, match='carries LoRA of rank'):
        convert_detector(part['checkpoint'], config)


def test_normalizer_is_a_float_in_both(part, plain):
    for weights in ('live', 'ema'):
        converted, _ = convert_detector(
            part['checkpoint'], plain, weights=weights)
        value = converted['state_dict']['head.loss_normalizer']
        entry = dict(live='state_dict', ema='state_dict_ema')[weights]
        theirs, = (v for k, v in part['checkpoint'][entry].items()
                   if k.endswith('loss_normalizer'))
        assert value.is_floating_point() and value == theirs


def test_every_misfit_is_named(part, plain):
    state = dict(part['checkpoint']['state_dict_ema'])
    lost = state.pop('rpn_head.cls_head.bias')
    state['rpn_head.cls_head.bais'] = lost
    state['rpn_head.reg_head.bias'] = lost[:1]
    half = 'backbone.model.backbone.blocks.1.norm1.weight'
    del state[half]
    _, report = convert_detector(dict(state_dict=state), plain)
    assert report.missing == [
        'backbone.blocks.1.norm1.weight', 'head.cls_head.bias'
    ]
    assert report.unexpected == ['rpn_head.cls_head.bais']
    assert report.reshaped == ['head.reg_head.bias (1,) instead of (2,)']
    text = report.text()
    for name in (*report.missing, *report.unexpected, *report.reshaped):
        assert name in text
    with pytest.raises(ValueError, match='2 missing.*1 unexpected.*1 resh'):
        report.check()


def test_detector_for_another_depth_is_rejected(part, plain):
    depth = plain['backbone']['depth'] - 2
    config = dict(plain, backbone=dict(plain['backbone'], depth=depth))
    _, report = convert_detector(part['checkpoint'], config)
    assert not report.fits
    assert all('.blocks.' in name for name in report.unexpected)


def test_half_of_a_lora_pair_is_rejected(part, plain):
    state = dict(part['checkpoint']['state_dict'])
    del state['module.backbone.model.backbone.blocks.1.attn.lora_proj.B']
    with pytest.raises(ValueError, match=r'blocks\.1\.attn\.lora_proj\.B'):
        convert_detector(dict(state_dict=state), plain, merge_lora=True)
    _, report = convert_detector(dict(state_dict=state), plain)
    assert report.missing == [
        'backbone.blocks.1.attn.proj.lora_B.default.weight'
    ]


def test_weights_that_are_not_there(part, plain):
    content = dict(state_dict=part['checkpoint']['state_dict'], epoch=1)
    with pytest.raises(ValueError, match=r"\['live'\], expected ema"):
        convert_detector(content, plain, weights='ema')
    with pytest.raises(ValueError, match='its entries are'):
        convert_detector(dict(weights=content['state_dict'], epoch=1), plain)


def test_detector_of_whole_videos(part, configs):
    whole = part['anet_like']
    config = localizer_config(configs['anet_like']['teacher'],
                              whole['inputs'].shape[3])
    converted, report = convert_detector(
        whole['checkpoint'], config, merge_lora=True)
    report.check()
    model = MODELS.build(config)
    model.load_state_dict(converted['state_dict'])
    for name, value in whole['merged_ema_changed'].items():
        ours = model.state_dict()[detector_name(name)]
        torch.testing.assert_close(ours, value, rtol=0, atol=1e-6)


def test_names_keep_their_place():
    name = 'module.backbone.model.backbone.blocks.11.attn.lora_qkv.A'
    ours = 'backbone.blocks.11.attn.qkv.lora_A.default.weight'
    assert detector_name(name) == our_name(name, lora=True) == ours
    head = 'rpn_head.scale.0.scale'
    assert detector_name(head) == 'head.scale.0.scale'
    path = 'projection.stem.0.drop_path_attn.scale'
    assert detector_name(f'module.{path}', ('qkv', 'proj')) == path
    attention = 'projection.stem.0.attn.proj.weight'
    assert detector_name(attention, ('qkv', 'proj')) == attention
