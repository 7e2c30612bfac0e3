"""Without a block for a while, without it for good, and replay."""
from mmblockdrop.compression import BlockStack, SharedPrefix, replay

import pytest
import torch
from torch import nn


class Residual(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + torch.tanh(self.fc(x))


class Net(nn.Module):

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(3, 3)
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList(
            Residual() for _ in range(depth))
        self.tail = nn.Sequential(Residual(), Residual())

    def forward(self, x):
        x = self.stem(x)
        for block in self.encoder.blocks:
            x = block(x)
        return self.tail(x)


X = torch.arange(6.).reshape(2, 3)


def test_without_equals_remove_and_is_undone():
    net = Net()
    stack = BlockStack(net, 'encoder.blocks')
    full = net(X)
    with stack.without(2):
        shorter = net(X)
    assert torch.equal(net(X), full)
    assert not torch.equal(shorter, full)
    stack.remove(2)
    assert torch.equal(net(X), shorter)
    assert stack.remaining == [0, 1, 3, 4]


def test_without_is_undone_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        with BlockStack(net, 'encoder.blocks').without(1):
            raise RuntimeError
    assert BlockStack(net, 'encoder.blocks').remaining == [0, 1, 2, 3, 4]


def test_several_paths_make_one_stack():
    net = Net()
    stack = BlockStack(net, ['encoder.blocks', 'tail.1'])
    assert len(stack) == 6 and stack.names[5] == 'tail.1'
    stack.remove(5)
    assert stack.remaining == [0, 1, 2, 3, 4]


def test_wrong_path_lists_the_stacks():
    with pytest.raises(ValueError) as error:
        BlockStack(Net(), 'encoder.block')
    assert "did you mean 'encoder.blocks'" in str(error.value)
    assert 'tail (2 blocks)' in str(error.value)


@pytest.mark.parametrize('index,word', [(7, '0 to 4'), (-1, '0 to 4')])
def test_wrong_index(index, word):
    with pytest.raises(ValueError, match=word):
        BlockStack(Net(), 'encoder.blocks').remove(index)


def test_replay_is_idempotent_and_checks_depth():
    record = dict(
        stack='encoder.blocks',
        depth=5,
        start_dropped=[4],
        rounds=[dict(dropped=[1]), dict(dropped=[0])])
    net = Net()
    assert replay(net, record) == [4, 1, 0]
    assert replay(net, record) == [4, 1, 0]
    assert BlockStack(net, 'encoder.blocks').remaining == [2, 3]
    with pytest.raises(ValueError, match='5 blocks.*builds 4'):
        replay(Net(4), record)


@pytest.mark.parametrize('removed', [[], [1], [4, 2]])
def test_shared_prefix_is_exact_and_cheap(removed):
    net = Net().eval()
    stack = BlockStack(net, 'encoder.blocks')
    for index in removed:
        stack.remove(index)
    plain = {}
    for index in stack.remaining:
        with stack.without(index):
            plain[index] = net(X)
    for index in stack.remaining:
        stack[index].calls = 0
    with torch.no_grad(), SharedPrefix(stack) as prefix:
        shared = {i: net(X) for i in prefix.candidates(stack.remaining)}
    for index in stack.remaining:
        assert torch.equal(shared[index], plain[index])
    n = len(stack.remaining)
    assert prefix.executions == (n - 1) + n * (n - 1) // 2
    assert sum(stack[i].calls for i in stack.remaining) == prefix.executions
    with torch.no_grad():
        net(X)
    assert all('forward' not in stack[i].__dict__ for i in stack.remaining)
