"""The attention or the MLP of a block alone."""
from mmblockdrop.compression import (BlockStack, HalfBlocks, SharedPrefix,
                                     find_writers, removed_ids, replay)
from mmblockdrop.registry import MODELS

import pytest
import torch
from torch import nn
from zoo import VIT, ZOO, build

TRANSFORMERS = [
    'mmaction.VisionTransformer', 'mmblockdrop.LoRAViT',
    'mmaction.TimeSformer', 'mmaction.SwinTransformer3D',
    'mmpretrain.VisionTransformer'
]


@pytest.fixture(scope='module', params=TRANSFORMERS)
def probed(request):
    model, clips = build(request.param)
    halves = HalfBlocks(model, ZOO[request.param].stack)
    with torch.no_grad():
        halves.probe(lambda: model(clips))
    return model, clips, halves


def last_layer(halves, part):
    """The layer of a branch that writes into the residual stream."""
    layers = find_writers(halves.model, halves.branches[part].block)
    inside = [name for name in layers if name.startswith(f'{part}.')]
    assert len(inside) == 1
    return halves.model.get_submodule(inside[0])


@torch.no_grad()
def test_every_half_goes_as_if_it_wrote_nothing(probed):
    model, clips, halves = probed
    full, keys = model(clips), list(model.state_dict())
    assert halves.candidates() == halves.ids and not halves.fixed
    for part in halves.ids:
        layer = last_layer(halves, part)
        kept = [p.clone() for p in layer.parameters()]
        for parameter in layer.parameters():
            parameter.zero_()
        silenced = model(clips)
        for parameter, value in zip(layer.parameters(), kept):
            parameter.copy_(value)
        with halves.without(part):
            shorter = model(clips)
            gone = set(keys) - set(model.state_dict())
            assert set(model.state_dict()) < set(keys)
        assert torch.equal(shorter, silenced)
        assert not torch.equal(shorter, full)
        assert any(key.startswith(f'{part}.') for key in gone)
        block = halves.branches[part].block
        assert all(key.startswith(f'{block}.') for key in gone)
    assert torch.equal(model(clips), full)
    assert list(model.state_dict()) == keys


@torch.no_grad()
@pytest.mark.parametrize('gone', [0, 1, 3])
def test_the_shared_prefix_is_exact(probed, gone):
    model, clips, halves = probed
    halves = HalfBlocks(model, halves.path)
    removed = halves.ids[1:1 + gone]
    with remaining_without(halves, removed):
        plain = {}
        for part in halves.candidates():
            with halves.without(part):
                plain[part] = model(clips)
        with SharedPrefix(halves) as prefix:
            shared = {
                part: model(clips)
                for part in prefix.candidates(halves.candidates())
            }
        assert sorted(shared) == sorted(plain)
        for part, output in plain.items():
            assert torch.equal(output, shared[part]), part
        n = len(halves.candidates())
        assert prefix.executions == (n - 1) + n * (n - 1) // 2


class remaining_without:
    """Without several parts inside a ``with`` statement."""

    def __init__(self, halves, parts):
        self.contexts = [halves.without(part) for part in parts]

    def __enter__(self):
        for context in self.contexts:
            context.__enter__()

    def __exit__(self, *exc):
        for context in reversed(self.contexts):
            context.__exit__(*exc)


@torch.no_grad()
def test_a_block_without_halves_is_a_removed_block(probed):
    model, clips, halves = probed
    number = halves.branches[halves.ids[-1]].number
    parts = [p for p in halves.ids if halves.branches[p].number == number]
    stack = BlockStack(model, halves.path)
    with stack.without(number):
        expected, keys = model(clips), list(model.state_dict())
    with remaining_without(halves, parts):
        assert torch.equal(model(clips), expected)
        assert list(model.state_dict()) == keys
        assert number not in stack.remaining
        assert not set(parts) & set(halves.remaining)


def vit(**kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(VIT, type='mmblockdrop.LoRAViT', **kwargs))
    return model.eval()


def test_layer_scale_leaves_with_its_half():
    model = vit(init_values=0.5)
    names = [name for name, _ in model.named_parameters()]
    halves = HalfBlocks(model, 'blocks')
    with halves.without('blocks.1.attn'):
        assert not hasattr(model.blocks[1], '_parameters') or (
            'gamma_1' not in model.blocks[1]._parameters)
        left = [name for name, _ in model.named_parameters()]
        assert 'blocks.1.gamma_1' not in left and 'blocks.1.gamma_2' in left
        model(torch.zeros(1, 3, 4, 32, 32)).sum().backward()
    assert [name for name, _ in model.named_parameters()] == names


def test_a_record_of_halves_is_replayed():
    model, clips = vit(), torch.randn(1, 3, 4, 32, 32)
    halves = HalfBlocks(model, 'blocks')
    halves.probe(lambda: model(clips))
    gone = ['blocks.2.mlp', 'blocks.0.attn', 'blocks.0.mlp']
    for part in gone:
        halves.remove(part)
    record = dict(
        halves.record(), version=2, start_dropped=[], probe=halves.probed,
        rounds=[dict(dropped=[part]) for part in gone])
    assert record['kind'] == 'HalfBlocks' and record['depth'] == 6
    fresh = vit()
    assert replay(fresh, record) == removed_ids(record) == gone
    assert replay(fresh, record) == gone
    assert torch.equal(fresh(clips), model(clips))
    assert BlockStack(fresh, 'blocks').remaining == [1, 2]
    by_config = vit(drop_blocks=[0, 'blocks.2.mlp'])
    by_config.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(by_config(clips), model(clips))


@pytest.mark.parametrize('parts, value', [
    (['blocks.7.attn'], 'blocks.7.attn'),
    (['blocks.0.attn', 'blocks.0.attn'], 'blocks.0.attn'),
    ([0, 'blocks.0.attn'], 'blocks.0.attn'),
])
def test_wrong_halves_are_named(parts, value):
    with pytest.raises(ValueError, match=value):
        vit(drop_blocks=parts)


def test_the_last_half_stays():
    model = vit()
    halves = HalfBlocks(model, 'blocks')
    for part in halves.ids[:-1]:
        halves.remove(part)
    with pytest.raises(ValueError, match='blocks.2.mlp'):
        halves.remove('blocks.2.mlp')
    model(torch.zeros(1, 3, 4, 32, 32))


def test_a_class_without_halves_says_so():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    with pytest.raises(ValueError, match='HalfBlocks.*Linear.*block_spec'):
        HalfBlocks(model, 'blocks')
