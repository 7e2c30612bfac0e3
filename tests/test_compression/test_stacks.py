"""Paths of stacks: one, several, single modules, wrong ones."""
from mmblockdrop.compression import BlockStack, find_stacks

import pytest
from torch import nn


class Block(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(2, 2))
                                     for _ in range(2))


class Net(nn.Module):

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        self.mixed = nn.ModuleList([Block(), nn.Conv1d(1, 1, 1)])
        self.single = nn.ModuleList([Block()])
        self.named = nn.Sequential()
        self.named.add_module('first', Block())
        self.named.add_module('second', Block())


def test_stacks_are_lists_of_similar_modules():
    found = find_stacks(Net())
    assert found.pop('encoder.blocks') == 6 and found.pop('named') == 2
    assert all(path.endswith('experts') for path in found)


def test_removed_ids_still_count():
    net = Net()
    stack = BlockStack(net, 'encoder.blocks')
    for index in (1, 2, 3, 4, 5):
        stack.remove(index)
    assert find_stacks(net)['encoder.blocks'] == 6


def test_wrong_path_lists_the_stacks_with_their_lengths():
    with pytest.raises(ValueError) as error:
        BlockStack(Net(), 'encoder.layers')
    message = str(error.value)
    assert "did you mean 'encoder.blocks'?" in message
    assert 'encoder.blocks (6 blocks)' in message
    assert 'named (2 blocks)' in message
    assert 'encoder.blocks.*.experts (2 blocks, 6 times)' in message


def test_names_of_a_sequential_are_kept():
    stack = BlockStack(Net(), 'named')
    assert list(stack.names.values()) == ['named.first', 'named.second']
    stack.remove(1)
    assert stack.remaining == [0]


def test_modules_instead_of_paths():
    net = Net()
    stack = BlockStack(net, [net.encoder.blocks[1], net.named])
    assert stack.path == ['encoder.blocks.1', 'named']
    assert list(stack.names.values()) == [
        'encoder.blocks.1', 'named.first', 'named.second'
    ]
    assert BlockStack(net, net.named).path == 'named'
    with pytest.raises(ValueError, match='not a module of Net'):
        BlockStack(net, [Block()])


@pytest.mark.parametrize('path,word', [
    (['encoder.blocks', 'encoder.blocks.2'], "'encoder.blocks.2' twice"),
    (['encoder.blocks', 'encoder.blocks.2.experts'],
     "'encoder.blocks.2.experts.0', which lies inside the block "
     "'encoder.blocks.2'"),
])
def test_a_block_is_named_once(path, word):
    with pytest.raises(ValueError, match=word):
        BlockStack(Net(), path)


def test_an_empty_stack():
    with pytest.raises(ValueError, match="'encoder.blocks' is empty"):
        BlockStack(Net(0), 'encoder.blocks')
