"""What takes the place of a block's output, found by running it."""
from mmblockdrop.compression import (BlockStack, DroppedBlock, block_tensor,
                                     replay)
from mmblockdrop.compression.bypass import NoBypass, find_bypass

import pytest
import torch
from torch import nn

X, MASK = torch.randn(2, 3, 4), torch.ones(2, 1, 4, dtype=torch.bool)


@pytest.mark.parametrize('args,kwargs,output,bypass', [
    ((X, ), {}, X + 1, 0),
    ((X, MASK), {}, X + 1, 0),
    ((X, MASK), {}, (X + 1, ~MASK), [0, 1]),
    ((X, (2, 3)), {}, (X + 1, [2, 3]), [0, 1]),
    ((X, ), dict(mask=MASK), (X + 1, MASK), [0, 'mask']),
    ((), dict(x=X, size=4), X + 1, 'x'),
    ((MASK.shape, X), {}, X + 1, 1),
    ((X, X), {}, (X, X), [0, 1]),
    ((X, ), {}, (X, None), [0, None]),
    (((X, MASK), ), {}, (X, MASK), 0),
    ((dict(x=X, m=MASK), ), {}, dict(x=X + 1, m=MASK), 0),
])
def test_arguments_stand_for_the_output(args, kwargs, output, bypass):
    assert find_bypass(args, kwargs, output) == bypass
    given = DroppedBlock(bypass)(*args, **kwargs)
    assert type(given) is type(output) or isinstance(output, (tuple, list))
    assert block_tensor(given) is X


@pytest.mark.parametrize('args,output,why', [
    ((X, ), X[:, :2], r'turns \[2, 3, 4\] into \[2, 2, 4\]'),
    ((X, ), X.double(), 'turns torch.float32 into torch.float64'),
    ((X, MASK), (X, MASK[..., :2]), r'returns \[2, 1, 2\] at place 1'),
    ((X, (2, 3)), (X, (2, 2)), r'returns \(2, 2\) at place 1'),
    ((X, ), (X, X), r'returns \[2, 3, 4\] at place 1'),
    ((X, X[0]), X[0], r'turns \[2, 3, 4\] into \[3, 4\]'),
    ((X, ), None, 'returns None'),
    ((3, ), X, 'is given no tensor'),
])
def test_nothing_stands_for_the_output(args, output, why):
    with pytest.raises(NoBypass, match=why):
        find_bypass(args, {}, output)


def test_no_features_in_an_output():
    with pytest.raises(TypeError, match=r'found \(3, None\)'):
        block_tensor((3, None))


class Step(nn.Module):
    """Returns features and mask; halves both if asked to."""

    def __init__(self, stride: int = 1, width: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, width, 1, stride)
        self.out = nn.Linear(width, width)
        self.stride = stride

    def forward(self, x, mask):
        x = self.conv(x)
        # The weight is read: the layer is not called.
        x = x + nn.functional.linear(x.mT, self.out.weight).mT
        return x, mask[..., ::self.stride]


class Net(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps = nn.ModuleList(
            [Step(), Step(2), Step(), Step(), Step(), Step()])

    def forward(self, x, mask):
        for i, step in enumerate(self.steps[:5]):
            x, mask = step(x, mask)
        self.steps[3].conv.weight  # whoever drops block 3 breaks this
        return x * mask


def test_probe_of_features_with_mask():
    net = Net().eval()
    stack = BlockStack(net, 'steps')
    stack.probe(lambda: net(X, MASK))
    assert stack.candidates() == [0, 2, 4]
    assert stack.fixed[1].startswith('turns [2, 3, 4] into [2, 3, 2]')
    assert 'AttributeError' in stack.fixed[3]
    assert stack.fixed[5] == 'does not run'
    assert stack.idle == [f'steps.{i}.out' for i in range(5)]
    assert 'steps.5 does not run' in stack.why_fixed
    net(X, MASK)  # the model is as it was
    with pytest.raises(ValueError, match=r'has to stay.*\[0, 2, 4\]'):
        stack.remove(1)


def test_a_record_brings_back_what_the_probe_found():
    net, x = Net().eval(), X
    stack = BlockStack(net, 'steps')
    stack.probe(lambda: net(x, MASK))
    stack.remove(2)
    record = dict(stack='steps', depth=6, start_dropped=[],
                  probe=stack.probed, rounds=[dict(dropped=[2])])
    fresh = Net().eval()
    assert replay(fresh, record) == [2]
    assert torch.equal(fresh(x, MASK), net(x, MASK))
    again = BlockStack(fresh, 'steps')  # as a later run does, without record
    again.probe(lambda: fresh(x, MASK))
    assert again.probed == stack.probed


class Twice(nn.Module):
    """Calls its blocks in another order than they are listed in."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.b = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x):
        return self.a[0](self.a[1](self.b[1](self.b[0](x))))


def test_order_of_execution_is_recorded():
    net = Twice().eval()
    stack = BlockStack(net, ['a', 'b'])
    stack.probe(lambda: net(X))
    assert stack.order == stack.probed['order'] == [2, 3, 1, 0]
    assert BlockStack(net, ['a', 'b'], stack.probed).order == stack.order


def test_a_block_that_is_called_in_several_ways():
    net = nn.Module()
    net.blocks = nn.ModuleList([Step(), Step()])
    stack = BlockStack(net, 'blocks')

    def run():
        net.blocks[0](X, MASK)
        net.blocks[0](X, mask=MASK)
        net.blocks[1](X, MASK)

    stack.probe(run)
    assert stack.fixed == {0: 'is called in several ways'}
