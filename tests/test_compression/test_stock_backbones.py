"""One block less in every backbone, whatever its blocks hand on."""
from typing import Any, List

from mmblockdrop.compression import BlockStack, SharedPrefix, find_stacks

import pytest
import torch
from zoo import ZOO, build


@pytest.fixture(scope='module', params=ZOO)
def probed(request):
    model, clips = build(request.param)
    stack = BlockStack(model, ZOO[request.param].stack)
    stack.probe(lambda: model(clips))
    return request.param, model, clips, stack


def tensors(value: Any) -> List[torch.Tensor]:
    """All tensors that a backbone returns."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for entry in value for t in tensors(entry)]


def equal(first: Any, second: Any) -> bool:
    """Whether two outputs are the same to the last bit."""
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return all(torch.equal(a, b) for a, b in pairs) and bool(pairs)


@torch.no_grad()
def test_a_block_goes(probed):
    name, model, clips, stack = probed
    assert sorted(stack.fixed) == list(ZOO[name].fixed)
    keys = set(model.state_dict())
    full = model(clips)
    index = stack.candidates()[len(stack.candidates()) // 2]
    with stack.without(index):
        shorter = model(clips)
        assert set(model.state_dict()) == {
            k
            for k in keys if not k.startswith(f'{stack.names[index]}.')
        }
    assert equal(model(clips), full)
    assert not equal(shorter, full)
    assert all(torch.isfinite(t).all() for t in tensors(shorter))
    assert set(model.state_dict()) == keys


@torch.no_grad()
def test_the_shared_prefix_is_exact(probed):
    name, model, clips, stack = probed
    plain = {}
    for index in stack.candidates():
        with stack.without(index):
            plain[index] = model(clips)
    with SharedPrefix(stack) as prefix:
        shared = {
            i: model(clips)
            for i in prefix.candidates(stack.candidates())
        }
    assert sorted(shared) == sorted(stack.candidates())
    for index in stack.candidates():
        assert equal(shared[index], plain[index])
    order = [i for i in stack.order if i in stack.remaining]
    places = [order.index(i) for i in stack.candidates()]
    first = max(places)  # all but the missing one; then what comes behind
    assert prefix.executions == len(order) - 1 + sum(
        len(order) - 1 - place for place in places if place != first)


def test_fixed_blocks_cannot_be_removed(probed):
    name, _, _, stack = probed
    for index in ZOO[name].fixed:
        assert stack.fixed[index].startswith('turns [')
        with pytest.raises(ValueError, match='has to stay: turns'):
            stack.remove(index)


def test_the_stacks_are_found(probed):
    name, model, _, stack = probed
    found = find_stacks(model)
    paths = [stack.path] if isinstance(stack.path, str) else stack.path
    for path in paths:
        if len(model.get_submodule(path)) > 1:
            assert found[path] == len(model.get_submodule(path))
