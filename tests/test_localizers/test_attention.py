"""Masked attention, global and local."""
from mmblockdrop.localizers.actionformer.attention import (MaskedConvAttention,
                                                           attend,
                                                           attend_locally)

import pytest
import torch


@pytest.mark.parametrize('length,reach', [(7, 2), (16, 1), (40, 4), (53, 9),
                                          (64, 3), (20, 30)])
def test_local_attention_is_attention_in_a_band(length, reach):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, length, 4)
    mask = torch.arange(length) < torch.tensor([[length], [length // 2]])
    step = torch.arange(length)
    band = (step[:, None] - step).abs() <= reach
    expected = attend(query, key, value, band & mask[:, None, None])
    ours = attend_locally(query, key, value, mask, reach)
    for i, valid in enumerate(mask):
        torch.testing.assert_close(ours[i, :, valid], expected[i, :, valid])


def test_attention_by_hand():
    query, key, value = torch.randn(3, 1, 1, 5, 8)
    allowed = torch.tensor([True, True, True, False, False])
    weights = (query @ key[..., :3, :].transpose(2, 3) / 8**0.5).softmax(-1)
    torch.testing.assert_close(
        attend(query, key, value, allowed.view(1, 1, 1, 5)),
        weights @ value[..., :3, :])


@pytest.mark.parametrize('window_size', [-1, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_padding_changes_nothing(window_size, stride):
    torch.manual_seed(0)
    layer = MaskedConvAttention(8, 2, stride, window_size).eval()
    short = torch.randn(1, 8, 20)
    padded = torch.nn.functional.pad(short, (0, 17))
    mask = torch.arange(37)[None] < 20
    out, out_mask = layer(padded, mask)
    expected, _ = layer(short, mask[:, :20])
    kept = 20 // stride
    assert out.shape[-1] == -(-37 // stride) == out_mask.shape[-1]
    assert out_mask.sum() == kept
    torch.testing.assert_close(out[..., :kept], expected)
    assert not out[..., kept:].any()


@pytest.mark.parametrize('window_size', [-1, 5])
def test_a_sample_of_padding_alone_is_finite(window_size):
    layer = MaskedConvAttention(8, 2, 1, window_size)
    x = torch.randn(2, 8, 12, requires_grad=True)
    mask = torch.tensor([[True], [False]]).expand(2, 12)
    out, _ = layer(x, mask)
    out.sum().backward()
    assert out.isfinite().all() and not out[1].any()
    assert x.grad.isfinite().all()


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match='num_heads=3.*out_channels=8'):
        MaskedConvAttention(8, 3)
