"""Adapters across clips: time of a window, freezing, start and removal."""
import copy

from mmblockdrop.backbones import AdaptedEncoder, AdapterViT, LoRAViT
from mmblockdrop.backbones.adatad import adapters_of, fold_adapters
from mmblockdrop.backbones.base import VideoEncoder
from mmblockdrop.compression import (BlockStack, HalfBlocks, add_lora,
                                     find_writers)
from mmblockdrop.compression.spec import facts_of
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

VIT = dict(
    img_size=16, patch_size=8, embed_dims=16, depth=4, num_heads=2,
    num_frames=4)
CLIPS = (4, 3, 4, 16, 16)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def randomize(model):
    """Adapters that do something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for adapter in adapters_of(model).values():
            for parameter in adapter.parameters():
                parameter.normal_(std=0.5)
    return model


def build(adapters=None, **kwargs):
    torch.manual_seed(0)
    return AdapterViT(adapters=adapters, **{**VIT, **kwargs})


def clips(count=4, seed=0):
    torch.manual_seed(seed)
    return torch.randn(count, *CLIPS[1:])


# ------------------------------------------------------------------- windows
def test_windows_of_any_length_never_mix():
    model = randomize(build()).eval()
    x = clips(6)
    with torch.no_grad():
        parts = [model(x[:1], 1), model(x[1:4], 3), model(x[4:], 2)]
        together = model(x, [1, 3, 2])
        alike = torch.cat([model(x[:3], 3), model(x[3:], 3)])
        torch.testing.assert_close(together, torch.cat(parts))
        torch.testing.assert_close(model(x, 3), alike)
        assert not torch.allclose(model(x, 3), model(x, 2))
        assert not torch.allclose(model(x[1:4], 3), model(x[1:4], 1))


@pytest.mark.parametrize('count,error', [
    (3, r'4 clips.*multiple of clips_per_window=3'),
    (0, 'clips_per_window=0'),
    ([3, 2], r'4 clips.*clips_per_window=\[3, 2\] sums up to 5'),
    ([4, 0], r'clips_per_window=\[4, 0\]'),
])
def test_a_wrong_length_is_an_error(count, error):
    with pytest.raises(ValueError, match=error):
        build()(clips(4), count)


def test_the_encoder_hands_over_whole_windows():
    model = randomize(build()).eval()
    frames = torch.randn(3, 3, 16, 16, 16)
    with torch.no_grad():
        whole = VideoEncoder(8, 4)(model, frames)
        for chunk in (1, 5, 8):
            torch.testing.assert_close(
                VideoEncoder(8, 4, clip_chunk=chunk)(model, frames), whole)
        changed = frames.clone()
        changed[0, :, :4] += 1
        other = VideoEncoder(8, 4)(model, changed)
    torch.testing.assert_close(other[1:], whole[1:])
    assert not torch.allclose(other[0, :, 2:], whole[0, :, 2:])


def test_whether_clips_depend_on_each_other():
    assert build().clip_independent is False
    assert build(dict(temporal=False)).clip_independent is True
    model = build(dict(blocks=[1]))
    assert model.clip_independent is False
    BlockStack(model, 'blocks').remove(1)
    assert model.clip_independent is True


def test_recomputing_sees_the_windows_of_its_batch():
    grads = []
    for with_cp in (False, True):
        model = randomize(build(with_cp=with_cp)).train()
        first = model(clips(4), 4)
        model(clips(4, 1), 2)
        first.square().mean().backward()
        grads.append([p.grad for p in model.parameters()
                      if p.grad is not None])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


# ---------------------------------------------------------- start and freezing
def plain_like(model):
    """The same encoder without adapters."""
    plain = LoRAViT(**VIT).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if '.adapter.' not in k})
    return plain


def run(work_dir, **backbone):
    cfg = toy.config(work_dir)
    cfg.model = toy.localizer(type='mmblockdrop.AdapterViT', **backbone)
    cfg.experiment_name = work_dir.name + str(id(cfg))
    cfg.log_level = 'ERROR'
    return Runner.from_cfg(cfg)


def test_a_fresh_model_is_the_unadapted_one_after_a_runners_start(tmp_path):
    runner = run(tmp_path)
    runner._init_model_weights()
    model = runner.model.backbone.eval()
    torch.manual_seed(0)
    x = torch.randn(4, 3, toy.CLIP, toy.SIZE, toy.SIZE)
    plain = MODELS.build(
        dict(toy.localizer()['backbone'], type='mmblockdrop.LoRAViT')).eval()
    plain.load_state_dict({
        k: v
        for k, v in model.state_dict().items() if '.adapter.' not in k
    })
    with torch.no_grad():
        torch.testing.assert_close(model(x, 2), plain(x), rtol=0, atol=0)
    assert all(a.down_proj.weight.std() > 0.01
               for a in adapters_of(model).values())


def test_training_moves_adapters_and_detector_alone(tmp_path):
    runner = run(tmp_path, drop_path_rate=0.1)
    runner._init_model_weights()
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    moved = {
        name
        for name, value in runner.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    inside = {name for name in moved if name.startswith('backbone.')}
    assert inside and all('.adapter.' in name for name in inside)
    assert moved - inside
    assert all(p.grad is None for n, p in runner.model.named_parameters()
               if n.startswith('backbone.') and '.adapter.' not in n)


def test_what_is_in_training_mode():
    for published in (True, False):
        model = build(
            drop_path_rate=0.1, stochastic_depth=published).train()
        assert model.blocks[3].drop_path.training is published
        assert model.blocks[3].adapter.up_proj.training
        assert not model.blocks[3].attn.training
        assert not model.eval().blocks[3].adapter.training
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    assert all(('.adapter.' in n) == p.requires_grad
               for n, p in model.named_parameters())


def test_weights_of_the_trunk_and_of_adapters_are_loaded(tmp_path):
    adapted = randomize(build())
    for source in (plain_like(adapted), adapted):
        path = tmp_path / f'{type(source).__name__}.pth'
        torch.save(dict(state_dict=source.state_dict()), path)
        model = build(pretrained=str(path))
        model.init_weights()
        state = model.state_dict()
        for name, value in source.state_dict().items():
            assert torch.equal(state[name], value), name
        fresh = source is not adapted
        assert all((a.up_proj.weight == 0).all() == fresh
                   for a in adapters_of(model).values())


def test_lora_beside_adapters():
    model = build(lora=dict(rank=2)).train()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all('adapter' in n or 'lora_' in n for n in trained)
    assert any('lora_' in n for n in trained)
    model(clips(), 2).sum().backward()
    lora, = (p for n, p in model.named_parameters()
             if n.startswith('blocks.0.attn.qkv.lora_B'))
    assert lora.grad is not None
    with pytest.raises(ValueError, match='side=True.*lora=None'):
        build(dict(side=True), lora=dict(rank=2))
    side = build(dict(side=True))
    add_lora(side, 2)
    with pytest.raises(ValueError, match='side=True.*lora=None'):
        side.train()


def test_mixed_precision():
    model = randomize(build()).train()
    with torch.autocast('cpu', torch.bfloat16):
        output = model(clips(), 2)
        output.float().square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all()
               for p in model.parameters() if p.requires_grad)
    torch.testing.assert_close(
        output.float(), model(clips(), 2), rtol=0.1, atol=0.2)


@pytest.mark.parametrize('adapters,error', [
    (dict(blocks=[4]), r'adapters\.blocks names block 4'),
    (dict(kernel_size=2), r'adapters\.kernel_size=2'),
    (dict(ratio=0.01), r'adapters\.ratio=0\.01'),
])
def test_settings_that_do_not_fit(adapters, error):
    with pytest.raises(ValueError, match=error):
        build(adapters)


# ----------------------------------------------------------------- compression
def test_an_adapter_leaves_with_its_block():
    model = randomize(build()).eval()
    stack = BlockStack(model, 'blocks')
    assert facts_of(model) == dict(temporal_reach=4)
    dropped = randomize(build(drop_blocks=[2])).eval()
    dropped.load_state_dict({
        k: v
        for k, v in model.state_dict().items()
        if not k.startswith('blocks.2.')
    })
    with torch.no_grad():
        whole = model(clips(), 2)
        with stack.without(2):
            torch.testing.assert_close(model(clips(), 2), dropped(clips(), 2))
            assert facts_of(model) == dict(temporal_reach=3)
        torch.testing.assert_close(model(clips(), 2), whole)
    stack.remove(2)
    assert not any(n.startswith('blocks.2.') for n in model.state_dict())
    halves = HalfBlocks(model, 'blocks')
    halves.remove('blocks.1.attn')
    assert 'blocks.1.adapter' in adapters_of(model)
    halves.remove('blocks.1.mlp')
    assert 'blocks.1.adapter' not in adapters_of(model)


def test_reach_counts_what_is_temporal():
    assert facts_of(build(dict(temporal=False))) == dict(temporal_reach=0)
    wide = build(dict(blocks=[0, 3], kernel_size=5, dilation=2))
    assert facts_of(wide) == dict(temporal_reach=8)


def test_the_adapter_writes_last():
    written = list(find_writers(build(dict(blocks=[1])), 'blocks.1'))
    assert written[-1] == 'blocks.1.adapter.up_proj'
    written = list(find_writers(build(dict(blocks=[1])), 'blocks.0'))
    assert written[-1] == 'blocks.0.mlp.layers.1'


def test_a_side_network_keeps_no_graph_of_the_trunk():
    model = randomize(build(dict(blocks=[1, 2], side=True))).train()
    stack = BlockStack(model, 'blocks')
    output = model(clips(), 2)
    names = set()
    todo = [output.grad_fn]
    while todo:
        node = todo.pop()
        names.add(type(node).__name__)
        todo += [n for n, _ in node.next_functions if n]
    assert not any('ScaledDotProduct' in n or 'LayerNorm' in n for n in names)
    model.eval()
    with torch.no_grad():
        trunk = plain_like(model)
        trunk.blocks = trunk.blocks[:3]
        with stack.without(1), stack.without(2):
            torch.testing.assert_close(
                model(clips(), 2),
                LoRAViT.forward(stack.model, clips()))
        model.blocks[1].adapter.gamma.zero_()
        model.blocks[2].adapter.gamma.zero_()
        torch.testing.assert_close(model(clips(), 2), trunk(clips()))


def test_folding():
    model = randomize(build())
    with torch.no_grad():
        model.blocks[1].adapter.gamma.zero_()
        expected = model.eval()(clips(), 2)
        done = fold_adapters(model)
        torch.testing.assert_close(model(clips(), 2), expected)
    assert set(done) == {f'blocks.{i}.adapter' for i in range(4)}
    assert 'removed' in done['blocks.1.adapter']
    assert sorted(adapters_of(model)) == [
        f'blocks.{i}.adapter' for i in (0, 2, 3)
    ]
    assert all(a.gamma == 1 for a in adapters_of(model).values())


# -------------------------------------------------------------- other encoders
def adapted(encoder, **kwargs):
    torch.manual_seed(0)
    model = AdaptedEncoder(dict(encoder), **kwargs)
    return model


OTHERS = {
    'tokens': (dict(type='mmaction.VisionTransformer', return_feat_map=True,
                    **VIT), dict(stack='blocks', steps=2), 4),
    'channels_last': (dict(
        type='mmaction.SwinTransformer3D', window_size=(2, 2, 2),
        arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2]),
        pretrained2d=False, out_indices=(1, )),
                      dict(stack='layers.0.blocks', layout='channels_last'),
                      2),
    'channels_first': (dict(
        type='mmaction.ResNet3d', depth=18, base_channels=4, pretrained=None,
        pretrained2d=False, conv1_stride_t=1, pool1_stride_t=1,
        conv1_kernel=(1, 7, 7), inflate=(0, 0, 0, 0)),
                       dict(stack='layer1', layout='channels_first',
                            adapters=dict(embed_dims=4, ratio=0.5)), 2),
    'images': (dict(
        type='mmblockdrop.FrameEncoder',
        encoder=dict(
            type='mmpretrain.VisionTransformer', img_size=16, patch_size=8,
            arch=dict(embed_dims=8, num_layers=2, num_heads=2,
                      feedforward_channels=8), out_type='featmap')),
               dict(stack='encoder.layers', special_tokens=1), 2),
}


@pytest.mark.parametrize('name', OTHERS)
def test_any_stack_of_blocks(name):
    encoder, settings, depth = OTHERS[name]
    model = adapted(encoder, **settings)
    model.init_weights()
    assert len(adapters_of(model)) == depth
    x = clips(6)

    def run(count):
        with torch.no_grad():
            found = model(x, count)
        return found[-1] if isinstance(found, (tuple, list)) else found

    model.eval()
    alone = run(1)
    torch.testing.assert_close(run(3), alone)  # fresh
    plain = MODELS.build(encoder)
    plain.eval()  # returns nothing for some classes of mmaction2
    plain.load_state_dict({
        k.removeprefix('encoder.'): v
        for k, v in model.state_dict().items() if '.adapter.' not in k
    })
    with torch.no_grad():
        found = plain(x)
    torch.testing.assert_close(
        alone, found[-1] if isinstance(found, (tuple, list)) else found)
    randomize(model)
    assert model.clip_independent is False
    whole = run(3)
    assert not torch.allclose(whole, run(1), atol=1e-3)
    x[:3] += 1
    torch.testing.assert_close(run(3)[3:], whole[3:])
    stack = BlockStack(model, f'encoder.{settings["stack"]}')
    stack.remove(0)
    assert len(adapters_of(model)) == depth - 1
    model.train()
    output = model(x, 3)
    output = output[-1] if isinstance(output, (tuple, list)) else output
    output.sum().backward()
    assert all(('.adapter.' in n) == (p.grad is not None)
               for n, p in model.named_parameters())
    assert facts_of(model) == dict(temporal_reach=depth - 1)


def test_other_stack_and_our_own_agree():
    ours = randomize(build()).eval()
    encoder, settings, _ = OTHERS['tokens']
    theirs = adapted(encoder, **settings).eval()
    theirs.encoder.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(theirs(clips(), 2), ours(clips(), 2))


@pytest.mark.parametrize('change,error', [
    (dict(layout='token'), 'backbone.layout'),
    (dict(adapters=dict(side=True)), 'AdapterViT'),
    (dict(stack='block'), "stack='block'"),
])
def test_other_stacks_that_do_not_fit(change, error):
    encoder, settings, _ = OTHERS['tokens']
    with pytest.raises(ValueError, match=error):
        adapted(encoder, **{**settings, **change})
    model = adapted(encoder, **{**settings, 'steps': 3})
    with pytest.raises(ValueError, match='backbone.steps=3'):
        model(clips(), 2)
