"""Rounds of a localizer with adapters: what is trained and recorded."""
import copy

from mmblockdrop.backbones.adatad import adapters_of
from mmblockdrop.export import export_model
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.config import Config
from rounds_kit import read_record, read_weights, sharpen, train

pytestmark = pytest.mark.usefixtures('unmeasured')
LOCALIZER = toy.localizer(type='mmblockdrop.AdapterViT')


@pytest.fixture(scope='module')
def adapted(trained, tmp_path_factory):
    """Checkpoint of a toy localizer whose adapters do something."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(LOCALIZER))
    state, _ = read_weights(trained)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all('.adapter.' in k for k in missing)
    with torch.no_grad():
        for adapter in adapters_of(model).values():
            for parameter in adapter.parameters():
                parameter.normal_(std=0.2)
    path = tmp_path_factory.mktemp('adapted') / 'adapted.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


def run(work_dir, adapted, **overrides):
    cfg = toy.block_drop(work_dir, adapted, **overrides)
    cfg.model.localizer = copy.deepcopy(LOCALIZER)
    return train(sharpen(cfg))


def changed(before, state):
    return {k for k, v in state.items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize('lora', [None, dict(rank=2)])
def test_alignment_trains_the_adapters_that_remain(tmp_path, adapted, lora):
    runner = run(tmp_path, adapted, drops=2, epochs_per_round=1, lora=lora,
                 student=dict(trainable=['adapter', 'lora_']))
    record = read_record(tmp_path)
    assert record['baseline']['temporal_reach'] == 4
    assert [r['temporal_reach'] for r in record['rounds']] == [3, 2]
    assert sorted(record['rounds'][0]['scores']) == ['0', '1', '2', '3']
    gone = [i for r in record['rounds'] for i in r['dropped']]
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    state = state['state_dict']
    assert not any(k.startswith(f'backbone.blocks.{i}.')
                   for k in state for i in gone)
    before, _ = read_weights(adapted)
    inside = {
        k
        for k, v in state.items() if k.startswith('backbone.')
        and k in before and not torch.equal(v, before[k])
    }
    assert inside and all('.adapter.' in k for k in inside if lora is None)
    trained = {n for n, p in runner.model.named_parameters()
               if p.requires_grad}
    names = [n for n in trained if 'backbone.' in n]
    assert all('.adapter.' in n or '.lora_' in n for n in names)
    final, _ = read_weights(tmp_path / 'round_2.pth')
    assert not any('.lora_' in k for k in final)


def test_repair_fits_what_writes_last(tmp_path, adapted):
    run(tmp_path, adapted, drops=1, epochs_per_round=0, lora=None,
        repair=dict(type='mmblockdrop.LinearRepair'),
        scorer=dict(type='mmblockdrop.FeatureErrorScorer'))
    entry, = read_record(tmp_path)['rounds']
    fitted = [e for e in entry['repair'] if 'why_not' not in e]
    assert fitted
    for e in fitted:
        assert e['error_after'] <= e['error_before']
    if entry['dropped'] != [0]:
        assert fitted[0]['layer'].endswith('adapter.up_proj')


def test_export_renumbers_the_blocks_with_adapters(tmp_path):
    cfg = copy.deepcopy(LOCALIZER)
    cfg['backbone']['adapters'] = dict(blocks=[0, 2, 3])
    torch.manual_seed(0)
    dropped = copy.deepcopy(cfg)
    dropped['backbone']['drop_blocks'] = [2]
    model = MODELS.build(dropped).eval()
    with torch.no_grad():
        for adapter in adapters_of(model).values():
            adapter.up_proj.weight.normal_(std=0.5)
    inputs = torch.randn(1, 1, 3, toy.FRAMES, toy.SIZE, toy.SIZE)
    report = export_model(model, Config(dict(model=cfg)), cfg, inputs,
                          tmp_path)
    assert report['needs_mmblockdrop']
    assert any('AdapterViT' in kind for kind in report['needs_mmblockdrop'])
    short = Config.fromfile(tmp_path / 'model.py').model
    assert short.backbone.depth == 3
    assert short.backbone.adapters.blocks == [0, 2]
    built = MODELS.build(short).eval()
    built.load_state_dict(
        torch.load(tmp_path / 'model.pth', weights_only=False)['state_dict'])
    with torch.no_grad():
        torch.testing.assert_close(
            built.extract_feat(inputs), model.extract_feat(inputs))


@pytest.mark.parametrize('side', [False, True])
def test_export_leaves_out_adapters_that_add_nothing(tmp_path, side):
    cfg = copy.deepcopy(LOCALIZER)
    cfg['backbone']['adapters'] = dict(temporal=False, side=side)
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg)).eval()
    inputs = torch.randn(1, 1, 3, toy.FRAMES, toy.SIZE, toy.SIZE)
    report = export_model(model, Config(dict(model=cfg)), cfg, inputs,
                          tmp_path / 'fresh')
    assert not any('AdapterViT' in kind
                   for kind in report['needs_mmblockdrop'])
    short = Config.fromfile(tmp_path / 'fresh' / 'model.py').model.backbone
    assert short.type == 'mmaction.VisionTransformer'
    assert not {'adapters', 'stochastic_depth'} & set(short)
    with torch.no_grad():
        model.backbone.blocks[1].adapter.up_proj.weight.normal_()
        model.backbone.blocks[1].adapter.gamma.fill_(0.5)
    export_model(model, Config(dict(model=cfg)), cfg, inputs,
                 tmp_path / 'one')
    short = Config.fromfile(tmp_path / 'one' / 'model.py').model.backbone
    assert short.adapters.blocks == [1]
    state = torch.load(tmp_path / 'one' / 'model.pth', weights_only=False)
    gamma, = (v for k, v in state['state_dict'].items()
              if k.endswith('adapter.gamma'))
    assert gamma == 1
