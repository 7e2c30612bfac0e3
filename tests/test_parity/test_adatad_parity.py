"""Adapter and encoder of AdaTAD against the numbers of the published code."""
from mmblockdrop.backbones import AdapterViT
from mmblockdrop.backbones.adatad import TemporalAdapter
from mmblockdrop.backbones.adatad.adapter import Windows
from mmblockdrop.backbones.base import VideoEncoder

import pytest
import torch
from mmengine.optim import build_optim_wrapper

pytestmark = pytest.mark.parity

OPERATOR = dict(rtol=1e-5, atol=1e-5)
NETWORK = dict(rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ adapter
def adapter_of(case):
    windows = Windows(steps=case['temporal_size'] // case['clips_per_video'])
    windows.set(case['videos'] * case['clips_per_video'],
                case['clips_per_video'])
    adapter = TemporalAdapter(
        case['embed_dims'],
        case['mlp_ratio'],
        temporal=case['kind'] == 'tia',
        kernel_size=case['kernel_size'],
        dilation=case['dilation'],
        windows=windows)
    assert adapter.down_proj.out_features == case['hidden_dims']
    return adapter


@pytest.fixture(scope='module')
def cases(golden_seeds):
    return golden_seeds('adatad_adapter.pt')['cases']


def test_adapter(cases):
    for case in cases:
        adapter = adapter_of(case)
        adapter.load_state_dict(case['state_dict'])
        x = case['input'].clone().requires_grad_()
        output = adapter(x)
        torch.testing.assert_close(output, case['output'], **OPERATOR)
        output.backward(case['grad_output'])
        torch.testing.assert_close(x.grad, case['grad_input'], **NETWORK)
        found = {n: p.grad for n, p in adapter.named_parameters()}
        assert found.keys() == case['grad_params'].keys()
        for name, gradient in case['grad_params'].items():
            torch.testing.assert_close(found[name], gradient, **NETWORK)


def test_a_fresh_adapter(cases):
    for case in cases:
        torch.manual_seed(0)
        adapter = adapter_of(case)
        change = adapter(case['input']) - case['input']
        assert change.abs().max() == case['fresh_output_minus_input_absmax']
        found = dict(adapter.named_parameters())
        theirs = case['fresh_init_std_and_absmax']
        assert found.keys() == theirs.keys()
        for name, (spread, largest) in theirs.items():
            value = found[name].detach()
            if spread == 0:
                assert value.abs().max() == largest
            else:  # standard deviations of a few drawn values
                assert 0.3 < value.std() / spread < 3


def test_reach(cases):
    for case in cases:
        if case.get('reach_moved') is None:
            continue
        adapter = adapter_of(case)
        adapter.load_state_dict(case['state_dict'])
        steps = case['temporal_size']
        shape = (case['videos'], steps, -1, case['embed_dims'])
        moved = case['input'].clone().reshape(shape)
        moved[0, case['reach_perturbed_tubelet']] += 1
        with torch.no_grad():
            change = adapter(moved.reshape(case['input'].shape)) - adapter(
                case['input'])
        found = change.reshape(shape).abs().amax((2, 3)) > 1e-6
        assert torch.equal(found, case['reach_moved'])


# ------------------------------------------------------------------ encoder
@pytest.fixture(scope='module')
def part(golden_seeds):
    return golden_seeds('adatad_vit.pt')


def vit(part, blocks=None, side=False, **kwargs):
    cfg = part['config']
    keys = ('img_size', 'patch_size', 'embed_dims', 'depth', 'num_heads',
            'mlp_ratio', 'qkv_bias', 'num_frames', 'tubelet_size')
    return AdapterViT(
        norm_cfg=dict(type='LN', eps=cfg['norm_eps']),
        adapters=dict(
            blocks=cfg['adapter_index'] if blocks is None else blocks,
            ratio=cfg['adapter_mlp_ratio'],
            side=side),
        **{key: cfg[key] for key in keys},
        **kwargs)


def load(model, state):
    """Strictly, but for the norm that a feature map does not use."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    rest = {k.split('.')[0] for k in (*missing, *unexpected)}
    assert rest <= {'fc_norm'}
    return model


def per_video(part):
    cfg = part['config']
    return cfg['total_frames'] // cfg['num_frames']


@pytest.mark.parametrize('with_cp', [False, True])
def test_encoder(part, with_cp):
    for run in part['runs']:
        model = load(vit(part, with_cp=with_cp), part['state_dict']).eval()
        output = model(run['input'], per_video(part))
        torch.testing.assert_close(output, run['output'], **NETWORK)
        output.backward(run['grad_output'])
        found = {
            name: p.grad
            for name, p in model.named_parameters() if p.grad is not None
        }
        assert sorted(found) == sorted(part['received_gradient'])
        for name, gradient in run['grad_adapter'].items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-3, atol=1e-4 * max(scale, 1))
            assert found[name].norm().item() == pytest.approx(
                run['grad_norms'][name], rel=1e-3, abs=1e-4)


def test_features_of_windows(part):
    for run in part['runs']:
        model = load(vit(part), part['state_dict']).eval()
        frames = run['input'].unflatten(0, (-1, per_video(part)))
        frames = frames.transpose(1, 2).flatten(2, 3)
        encoder = VideoEncoder(run['pooled'].shape[-1],
                               part['config']['num_frames'], clip_chunk=1)
        with torch.no_grad():
            torch.testing.assert_close(
                encoder(model, frames), run['pooled'], **NETWORK)


def test_blocks_that_are_dropped(part):
    for run in part['runs']:
        for case in run['block_drop']:
            model = load(
                vit(part, drop_blocks=case['drop_idx']), {
                    k: v
                    for k, v in part['state_dict'].items() if not k.startswith(
                        tuple(f'blocks.{i}.' for i in case['drop_idx']))
                }).eval()
            with torch.no_grad():
                output = model(run['input'], per_video(part))
            torch.testing.assert_close(output, case['output'], **NETWORK)


def test_what_is_trained(part):
    model = load(vit(part), part['state_dict']).train()
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(part['received_gradient'])
    modules = dict(model.named_modules())
    forced = part['modules_forced_to_eval_after_train_forward']
    for name in set(forced) & set(modules):
        assert not modules[name].training, name
    group, = part['optimizer_groups']
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(
                norm_decay_mult=0.,
                bias_decay_mult=0.,
                custom_keys=dict(
                    adapter=dict(lr_mult=group['lr'] / 1e-4)))))
    ours = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for entry in wrapper.optimizer.param_groups:
        for parameter in entry['params']:
            if parameter.requires_grad:
                found[ours[id(parameter)]] = entry
    assert sorted(found) == sorted(group['names'])
    for entry in found.values():
        assert entry['lr'] == pytest.approx(group['lr'])
        assert entry['weight_decay'] == pytest.approx(group['weight_decay'])


def test_side_network(part):
    ladder = part['ladder']
    model = vit(part, ladder['adapter_index'], side=True)
    state = {
        k: v
        for k, v in part['state_dict'].items() if '.adapter.' not in k
    }
    for name, value in ladder['state_dict'].items():
        _, _, index, rest = name.split('.', 3)
        block = ladder['adapter_index'][int(index)]
        state[f'blocks.{block}.adapter.{rest}'] = value
    load(model, state).eval()
    output = model(part['runs'][0]['input'], per_video(part))
    torch.testing.assert_close(output, ladder['output'], **NETWORK)
    output.sum().backward()
    assert all(('.adapter.' in n) == (p.grad is not None)
               for n, p in model.named_parameters())
