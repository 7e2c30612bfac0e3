"""Results are shared where that is exact, and only there."""
from mmblockdrop.compression import BlockStack, SharedPrefix

import pytest
import torch
from torch import nn


class Block(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x, *rest, **options):
        return x + torch.tanh(self.fc(x))


class Net(nn.Module):

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))


class Chunks(Net):
    """Every block runs once a chunk, the last one shorter."""

    def forward(self, x):
        outs = []
        for part in x.split(2):
            for block in self.blocks:
                part = block(part, (3, 4), scale=None)
            outs.append(part)
        return torch.cat(outs)


class Loop(Net):
    """What the last block returns goes into the first one again."""

    def forward(self, x):
        for _ in range(2):
            for block in self.blocks:
                x = block(x)
        return x


class Written(Net):
    """Writes into what a block returned."""

    def forward(self, x):
        x = x.clone()
        for block in self.blocks:
            x = block(x)
            x.mul_(0.5)
        return x


class Collecting(Net):
    """Blocks add to a list that they are given."""

    def forward(self, x):
        seen = []
        for block in self.blocks:
            x = block(x, seen)
            seen.append(x)
        return sum(seen)


class Growing(Block):

    def forward(self, x, seen):
        seen.append(x)
        return x + torch.tanh(self.fc(sum(seen)))


class Dense(Net):
    """The blocks themselves add to the list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Growing() for _ in range(4))

    def forward(self, x):
        seen = []
        for block in self.blocks:
            x = block(x, seen)
        return x + sum(seen)


class Backwards(Net):
    """Runs the blocks from the last to the first."""

    def forward(self, x):
        for block in reversed(self.blocks):
            x = block(x)
        return x


class Branches(Net):
    """Two pathways, one with a connection to the other."""

    def forward(self, x):
        y = self.blocks[1](self.blocks[0](x))
        z = self.blocks[2](x)
        return self.blocks[3](y + z)


def run(net, x, share):
    """Output without each block, and how many blocks that took."""
    stack = BlockStack(net.eval(), 'blocks')
    stack.probe(lambda: net(x))
    assert sorted(stack.candidates()) == stack.remaining
    with torch.no_grad():
        if share:
            with SharedPrefix(stack) as prefix:
                return {
                    i: net(x)
                    for i in prefix.candidates(stack.remaining)
                }, prefix.executions
        outputs = {}
        for index in stack.remaining:
            with stack.without(index):
                outputs[index] = net(x)
    return outputs, None


@pytest.mark.parametrize('kind,executions', [
    (Chunks, 27), (Loop, 21), (Written, 12), (Collecting, 9), (Dense, 12),
    (Backwards, 9), (Branches, 9)
])
def test_exact(kind, executions):
    x = torch.randn(5, 3)
    plain, _ = run(kind(), x.clone(), False)
    shared, count = run(kind(), x.clone(), True)
    assert sorted(shared) == sorted(plain)
    for index, output in plain.items():
        assert torch.equal(output, shared[index]), index
    assert count == executions


def test_nothing_is_shared_in_inference_mode():
    net = Net().eval()
    net.forward = lambda x: [x := b(x) for b in net.blocks][-1]
    stack = BlockStack(net, 'blocks')
    with torch.inference_mode(), SharedPrefix(stack) as prefix:
        for _ in prefix.candidates([1, 2, 3]):
            net.forward(torch.ones(1, 3))
    assert prefix.executions == 9


class Counted(Block):

    runs = 0

    def forward(self, x, *rest):
        self.runs += 1
        return super().forward(x), *rest


class Encoder(Net):
    """Chunk by chunk, a stem in front of the blocks and a norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = Counted(), Counted()

    def forward(self, x):
        outs = []
        for part in x.split(3):
            part, *_ = self.stem(part, (3, 4))
            for block in self.blocks:
                part = block(part)
            outs += self.norm(part)
        return torch.cat(outs)


@pytest.mark.parametrize('hooked,stem', [(False, 2), (True, 8)])
def test_what_stands_in_front_runs_once(hooked, stem):
    net, other = Encoder().eval(), Encoder().eval()
    stack = BlockStack(net, 'blocks')
    seen = []
    if hooked:  # somebody needs what happens inside the stem
        net.stem.fc.register_forward_hook(lambda *_: seen.append(1))
    x = torch.randn(5, 3)
    with torch.no_grad(), SharedPrefix(stack) as prefix:
        found = {i: net(x) for i in prefix.candidates(stack.remaining)}
    assert (net.stem.runs, net.norm.runs) == (stem, 8)
    assert len(seen) == (8 if hooked else 0)
    for index, output in found.items():
        with torch.no_grad(), BlockStack(other, 'blocks').without(index):
            assert torch.equal(output, other(x))
    with torch.no_grad():
        assert torch.equal(net(x), other(x))
    assert net.stem.runs == stem + 2, 'nothing is kept afterwards'


def test_blocks_whose_weights_are_changed_run_again():
    """As repair does: the block in front of the missing one is another."""
    net, other = Chunks().eval(), Chunks().eval()
    stack, plain = (BlockStack(m, 'blocks') for m in (net, other))
    x, found = torch.randn(5, 3), {}
    with torch.no_grad(), SharedPrefix(stack) as prefix:
        for i in prefix.candidates([1, 2, 3]):
            weight = net.blocks[i - 1].fc.weight
            before = weight.clone()
            weight.mul_(2)
            found[i] = net(x)
            weight.copy_(before)
    # Chunks of three: 3 blocks; 2 changed or behind; again 3 of 4.
    assert prefix.executions == 3 * (3 + 2 + 3)
    for i, output in found.items():
        with torch.no_grad(), plain.without(i):
            weight = other.blocks[i - 1].fc.weight
            weight.mul_(2)
            assert torch.equal(output, other(x))
            weight.div_(2)
