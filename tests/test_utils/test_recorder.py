"""Recording what modules return."""
from mmblockdrop.distillation import record

import pytest
import torch
from torch import nn


class Net(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(2, 3)
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, x, chunk=None):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.cat([block(part) for part in x.split(chunk or len(x))])
        return x


X = torch.arange(8.).reshape(4, 2)


def test_outputs_and_inputs_are_kept():
    net = Net()
    with record(net, ['', 'stem', 'blocks.1:input', 'blocks.1']) as kept:
        out = net(X)
    assert torch.equal(kept[''], out)
    assert torch.equal(kept['stem'], net.stem(X))
    assert torch.equal(kept['blocks.1:input'], net.blocks[0](net.stem(X)))
    assert torch.equal(net.blocks[1](kept['blocks.1:input']), out)


def test_gradients_flow_through_what_is_kept():
    net = Net()
    with record(net, ['blocks.0']) as kept:
        net(X)
    kept['blocks.0'].sum().backward()
    assert net.stem.weight.grad.abs().sum() > 0
    assert net.blocks[1].weight.grad is None


def test_a_module_that_runs_in_chunks_is_joined():
    net = Net()
    with record(net, ['blocks.0', 'blocks.0:input']) as whole:
        net(X)
    with record(net, ['blocks.0', 'blocks.0:input']) as chunked:
        net(X, chunk=3)
    for path in whole:
        torch.testing.assert_close(chunked[path], whole[path])


def test_outputs_that_cannot_be_joined_are_rejected():
    net = Net()
    with record(net, ['blocks.0']):
        net.blocks[0](X.new_zeros(2, 3))
        with pytest.raises(ValueError, match='blocks.0.*several times'):
            net.blocks[0](X.new_zeros(2, 5, 3))


def test_nothing_is_left_behind_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        with record(net, ['stem', 'blocks.0']) as kept:
            net(torch.zeros(1, 7))
    assert not kept
    assert not any(m._forward_hooks for m in net.modules())


def test_unknown_path_names_the_nearest():
    net = Net()
    with pytest.raises(ValueError) as error:
        with record(net, ['stem', 'block.1']):
            pass
    assert "module='block.1'" in str(error.value)
    assert "did you mean 'blocks.1'" in str(error.value)
    assert "'stem', 'blocks'" in str(error.value)
    assert not net.stem._forward_hooks
