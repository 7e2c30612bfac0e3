"""Attention within windows of a long clip, every second one shifted."""
from mmblockdrop.backbones.vit import LoRAViT
from mmblockdrop.compression import BlockStack

import pytest
import torch

STEPS = 12  # of two frames; a window has four
SIZES = dict(
    img_size=16, patch_size=8, embed_dims=16, num_heads=2, num_frames=8)


def encoder(depth: int, **options) -> LoRAViT:
    torch.manual_seed(0)
    vit = LoRAViT(depth=depth, **SIZES, **options)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit.eval().double()  # far steps matter little, but they do


def clip(steps: int = STEPS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(
        1, 3, 2 * steps, 16, 16, generator=generator, dtype=torch.float64)


def seen_from(vit: LoRAViT, step: int, steps: int = STEPS) -> list:
    """Steps whose features change with the frames of one step."""
    changed = clip(steps)
    changed[:, :, 2 * step:2 * step + 2] += 1
    gap = (vit(clip(steps)) - vit(changed)).abs().amax((0, 1, 3, 4))
    return gap.gt(1e-13).nonzero().flatten().tolist()


@pytest.mark.parametrize('depth,reach', [(1, 4), (2, 6), (3, 8), (4, 10),
                                         (5, 12)])
def test_reach_grows_by_half_a_window_with_every_block(depth, reach):
    vit = encoder(depth, shifted_windows=True)
    assert seen_from(vit, 0) == list(range(reach))


def test_windows_that_never_shift_stay_apart():
    vit = encoder(3, shifted_windows=[False] * 3)
    assert seen_from(vit, 5) == [4, 5, 6, 7]
    assert seen_from(vit, 9, steps=10) == [8, 9]  # the last one is shorter


def test_blocks_without_shift_are_those_of_separate_clips():
    plain, windows = encoder(2), encoder(2, shifted_windows=[False, False])
    long = clip()
    apart = torch.cat([plain(part) for part in long.split(8, dim=2)], 2)
    torch.testing.assert_close(windows(long), apart, atol=1e-5, rtol=1e-5)


def test_keys_are_those_of_the_plain_encoder():
    assert encoder(2).state_dict().keys() == encoder(
        2, shifted_windows=True).state_dict().keys()


def test_block_that_is_left_keeps_its_windows():
    full = encoder(3, shifted_windows=True)
    BlockStack(full, 'blocks').remove(0)
    listed = encoder(2, shifted_windows=[True, False])
    state = {
        f'blocks.{int(key[7]) - 1}{key[8:]}' if key.startswith('blocks.')
        else key: value for key, value in full.state_dict().items()
    }
    listed.load_state_dict(state)
    torch.testing.assert_close(listed(clip()), full(clip()))


def test_wrong_lists_and_pictures_are_named():
    with pytest.raises(ValueError, match='shifted_windows has 3 entries, '
                       'expected one per block: backbone.depth=2'):
        encoder(2, shifted_windows=[True, False, True])
    vit = encoder(1, shifted_windows=True)
    with pytest.raises(ValueError, match=r'img_size=16, found \(24, 24\)'):
        vit(torch.zeros(1, 3, 8, 24, 24, dtype=torch.float64))
