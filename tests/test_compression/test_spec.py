"""What classes declare about their blocks."""
import copy

from mmblockdrop.compression import (BlockSpec, BlockStack, Stack,
                                     declared_stacks, find_writers,
                                     register_spec, spec_of)
from mmblockdrop.compression.spec import find_place

import pytest
import torch
from torch import nn
from zoo import ZOO, build


@pytest.mark.parametrize('name', ZOO)
def test_declared_stacks_are_those_of_the_zoo(name):
    model, _ = build(name)
    expected = ZOO[name].stack
    expected = [expected] if isinstance(expected, str) else list(expected)
    assert declared_stacks(model) == [
        path for path in expected if path != 'transformer.dec'
    ]
    stack = BlockStack(model, expected)
    assert set(stack.fixed) <= set(ZOO[name].fixed)
    for part in stack.ids:
        place = find_place(model, stack.names[part])
        assert place is not None and place.spec is spec_of(place.owner)
        found = find_writers(model, stack.names[part])
        if 'conv3' not in place.spec.writes:  # of bottlenecks alone
            assert len(found) >= min(2, len(place.spec.writes))
        for layer in found:
            assert model.get_submodule(layer).weight is not None


def test_the_residual_stream_hears_nothing_but_the_writers():
    """Without their output a block returns what it is given."""
    for name in ('mmblockdrop.LoRAViT', 'mmaction.UniFormerV2',
                 'mmpretrain.ConvNeXt'):
        model, clips = build(name)
        stack = BlockStack(model, ZOO[name].stack)
        number = stack.remaining[-2]
        with torch.no_grad(), stack.without(number):
            expected = model(clips)
        for layer in find_writers(model, stack.names[number]):
            for parameter in model.get_submodule(layer).parameters():
                parameter.data.zero_()
        with torch.no_grad():
            found = model(clips)
        for a, b in zip(flat(found), flat(expected)):
            torch.testing.assert_close(a, b)


def flat(value):
    """All tensors of an output."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for entry in value for t in flat(entry)]


class Adapted(nn.Module):
    """Blocks whose adapters, schedule and tap are elsewhere."""

    block_spec = BlockSpec(
        stacks=(Stack('blocks', 'depth'), ),
        leaves={'adapters.{}': 0},
        changed=lambda model: model.plan())

    def __init__(self, depth=3):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(depth))
        self.adapters = nn.ModuleList(nn.Linear(2, 2) for _ in range(depth))
        self.plan()

    def plan(self):
        """The tap is behind the last block that remains."""
        stack = BlockStack(self, 'blocks')
        self.tap = stack.remaining[-1]

    def forward(self, x):
        for i, (block, adapter) in enumerate(zip(self.blocks, self.adapters)):
            x = adapter(block(x))
            if i == self.tap:
                return x


def test_what_belongs_to_a_block_leaves_and_comes_back():
    model, x = Adapted(), torch.ones(1, 2)
    stack, full, names = BlockStack(model, 'blocks'), model(x), [
        name for name, _ in model.named_parameters()
    ]
    with stack.without(2):
        assert model.tap == 1
        assert not any('.2.' in name for name, _ in model.named_parameters())
        assert torch.equal(
            model(x), model.adapters[1](model.blocks[1](model.adapters[0](
                model.blocks[0](x)))))
    assert model.tap == 2 and torch.equal(model(x), full)
    assert [name for name, _ in model.named_parameters()] == names
    stack.remove(2)
    assert copy.deepcopy(model).tap == 1


def test_classes_of_other_packages_are_registered_by_name():

    class Foreign(nn.Module):

        def __init__(self):
            super().__init__()
            self.steps = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    model = nn.Module()
    model.backbone = Foreign()
    assert declared_stacks(model) == []
    assert spec_of(model.backbone) is None
    package = Foreign.__module__.split('.')[0]
    register_spec(
        f'{package}.Foreign',
        BlockSpec(
            stacks=(Stack('steps'), ),
            why_fixed=lambda step: 'is the first'
            if step is model.backbone.steps[0] else None))
    assert declared_stacks(model) == ['backbone.steps']
    stack = BlockStack(model, 'backbone.steps')
    assert stack.candidates() == [1, 2]
    with pytest.raises(ValueError, match='backbone.steps.0.*is the first'):
        stack.remove(0)
