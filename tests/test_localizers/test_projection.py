"""The temporal pyramid."""
from mmblockdrop.localizers import ConvTransformerProjection, FPNIdentity
from mmblockdrop.localizers.actionformer.projection import (AffineDropPath,
                                                            sinusoids)

import pytest
import torch


def projection(**kwargs):
    cfg = dict(in_channels=6, out_channels=8, arch=(1, 1, 4), num_heads=2)
    return ConvTransformerProjection(**{**cfg, **kwargs})


def test_levels_halve_whatever_the_length():
    feats, masks = projection()(
        torch.randn(2, 6, 152),
        torch.arange(152) < torch.tensor([[152], [37]]))
    assert [x.shape[-1] for x in feats] == [152, 76, 38, 19, 10]
    assert [m.shape[-1] for m in masks] == [152, 76, 38, 19, 10]
    assert [int(m[1].sum()) for m in masks] == [37, 19, 10, 5, 3]
    for feat, mask in zip(feats, masks):
        assert not feat[1][:, ~mask[1]].any()


@pytest.mark.parametrize('window_size', [-1, (9, 9, 5, 5, 3)])
def test_local_windows_per_level(window_size):
    feats, _ = projection(window_size=window_size)(
        torch.randn(1, 6, 33), torch.ones(1, 33, dtype=torch.bool))
    assert [x.shape[-1] for x in feats] == [33, 17, 9, 5, 3]


def test_number_of_windows_must_fit():
    with pytest.raises(ValueError, match='window_size has 2 .* expected 5'):
        projection(window_size=(9, 9))


def test_scale_of_the_branches_acts_in_evaluation():
    path = AffineDropPath(3, 0.5, init_value=0.1).eval()
    assert torch.equal(path(torch.ones(2, 3, 4)), torch.full((2, 3, 4), 0.1))


def test_branches_drop_per_sample_and_keep_their_mean():
    torch.manual_seed(0)
    out = AffineDropPath(1, 0.25, init_value=1)(torch.ones(4000, 1, 2))
    torch.testing.assert_close(out.unique(), torch.tensor([0, 4 / 3]))
    assert torch.equal(out[:, :, 0], out[:, :, 1])
    assert out.mean().item() == pytest.approx(1, abs=0.05)


def test_without_stochastic_depth_there_is_no_scale():
    names = dict(projection(path_drop=0).named_parameters())
    assert not any('drop_path' in name for name in names)


def test_positions_are_interpolated_beyond_their_length():
    model = projection(use_abs_pe=True, max_seq_len=16).eval()
    mask = torch.ones(1, 40, dtype=torch.bool)
    assert model(torch.randn(1, 6, 40), mask)[0][0].shape[-1] == 40
    assert 'pos_embed' not in model.state_dict()
    table = sinusoids(5, 4)
    assert table.shape == (1, 4, 5)
    torch.testing.assert_close(table[0, 0] * 2, torch.arange(5.).sin())
    torch.testing.assert_close(table[0, 3] * 2, (torch.arange(5.) /
                                                 100).cos())


def test_neck_normalizes_every_level():
    neck = FPNIdentity(4, 4, num_levels=2)
    feats, masks = neck([torch.randn(1, 4, 6), torch.randn(1, 4, 3)],
                        [None, None])
    for feat in feats:
        torch.testing.assert_close(
            feat.mean(1), torch.zeros_like(feat[:, 0]), atol=1e-6, rtol=0)
    assert masks == [None, None]
    with pytest.raises(ValueError, match='out_channels=5'):
        FPNIdentity(4, 5, num_levels=2)
