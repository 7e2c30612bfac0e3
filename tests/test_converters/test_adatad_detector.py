"""Detectors with AdaTAD's adapters become ours, and back."""
import copy

from mmblockdrop.apis import init_localizer
from mmblockdrop.convert import convert_detector, detector_for_opentad
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def config(**adapters):
    return toy.localizer(type='mmblockdrop.AdapterViT', adapters=adapters)


def ours(cfg, drops=()):
    """A random localizer, without some blocks."""
    cfg = copy.deepcopy(cfg)
    cfg['backbone']['drop_blocks'] = list(drops)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def published(model, side=()):
    """The same weights in OpenTAD's names, written down here once more."""
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith('backbone.'):
            rest = name.removeprefix('backbone.')
            for index, block in enumerate(side):
                rest = rest.replace(f'blocks.{block}.adapter.',
                                    f'ladders.adapters.{index}.')
            name = f'backbone.model.backbone.{rest}'
        state[name.replace('head.', 'rpn_head.', 1)
              if name.startswith('head.') else name] = value
    return dict(
        epoch=3,
        state_dict={f'module.{k}': torch.zeros_like(v)
                    for k, v in state.items()},
        state_dict_ema=state)


@pytest.mark.parametrize('adapters,drops', [
    (dict(), []),
    (dict(blocks=[2, 3]), []),
    (dict(), [1]),
    (dict(temporal=False), [0, 3]),
    (dict(side=True), []),
    (dict(side=True, blocks=[1, 3]), []),
])
def test_there_and_back(tmp_path, adapters, drops):
    cfg = config(**adapters)
    model = ours(cfg, drops)
    blocks = adapters.get('blocks', [0, 1, 2, 3])
    side = blocks if adapters.get('side') else []
    content = published(model, side)
    converted, report = convert_detector(content, cfg)
    report.check()
    assert report.dropped == drops
    path = tmp_path / 'converted.pth'
    torch.save(converted, path)
    loaded = init_localizer(Config(dict(model=cfg)), str(path), 'cpu')
    batch = toy.batch()
    with torch.no_grad():
        data = model.data_preprocessor(batch)['inputs']
        torch.testing.assert_close(
            loaded.extract_feat(data), model.extract_feat(data))
    back, report = detector_for_opentad(converted, cfg)
    report.check()
    assert report.dropped == drops
    assert back['state_dict'].keys() == content['state_dict'].keys()
    for name, value in content['state_dict_ema'].items():
        assert torch.equal(back['state_dict_ema'][name], value)
        assert torch.equal(back['state_dict'][f'module.{name}'], value)


def test_every_misfit_is_named():
    cfg = config()
    content = published(ours(cfg))
    state = content['state_dict_ema']
    start = 'backbone.model.backbone.blocks.2.adapter'
    state[f'{start}.gama'] = state.pop(f'{start}.gamma')
    state[f'{start}.conv.weight'] = state[f'{start}.conv.weight'][:1]
    _, report = convert_detector(content, cfg)
    assert report.missing == ['backbone.blocks.2.adapter.gamma']
    assert report.unexpected == [f'{start}.gama']
    assert len(report.reshaped) == 1
    assert 'blocks.2.adapter.conv.weight' in report.reshaped[0]
    with pytest.raises(ValueError, match='1 missing.*1 unexpected.*1 resh'):
        report.check()
    mine = dict(state_dict=ours(cfg).state_dict())
    mine['state_dict']['head.extra'] = mine['state_dict'].pop(
        'head.cls_head.bias')
    _, report = detector_for_opentad(mine, cfg)
    assert report.missing == ['head.cls_head.bias']
    assert report.unexpected == ['head.extra']


def test_a_config_without_these_adapters_is_rejected():
    plain = toy.localizer()
    content = published(ours(config(blocks=[1, 3])))
    with pytest.raises(ValueError) as error:
        convert_detector(content, plain, source='best.pth')
    for part in ('best.pth', 'LoRAViT', 'mmblockdrop.AdapterViT',
                 'blocks=[1, 3]', 'blocks.1.adapter'):
        assert part in str(error.value)
    side = config(side=True, blocks=[1, 3])
    with pytest.raises(ValueError, match='adapters.side=True'):
        convert_detector(content, side)
    content = published(ours(side), [1, 3])
    with pytest.raises(ValueError, match='side=True'):
        convert_detector(content, config())
    _, report = convert_detector(published(ours(config(blocks=[1]))),
                                 config())
    assert report.missing and all(
        '.adapter.' in name for name in report.missing)
