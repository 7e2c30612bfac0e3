"""Windows along long clips, convolutions in front, weak branches."""
import copy

from mmblockdrop.backbones import LoRAViT, ScaleWeights, SmallViT
from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS

import pytest
import torch

STEPS = 12  # of two frames; a window has four
SIZES = dict(
    img_size=16, patch_size=8, embed_dims=16, num_heads=2, num_frames=8)


def encoder(depth: int, **options) -> SmallViT:
    torch.manual_seed(0)
    vit = SmallViT(depth=depth, **SIZES, **options)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit.eval().double()  # far steps matter little, but they do


def clip(steps: int = STEPS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(
        1, 3, 2 * steps, 16, 16, generator=generator, dtype=torch.float64)


def seen_from(vit: SmallViT, step: int, steps: int = STEPS) -> list:
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


TINY = dict(
    img_size=16, patch_size=8, embed_dims=16, depth=2, num_heads=2,
    num_frames=4)


def clips(size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, size, size, generator=generator)


@pytest.mark.parametrize('size,grid', [(16, 2), (24, 3)])
def test_stem_gives_the_grid_of_the_projection(size, grid):
    vit = SmallViT(**TINY, stem=dict(channels=[4, 4]))
    vit.init_weights()
    out = vit(clips(size))
    assert out.shape == (2, SIZES['embed_dims'], 2, grid, grid)
    out.mean().backward()
    assert all(p.grad is not None for p in vit.patch_embed.parameters())


def test_stem_that_does_not_fit_the_patch():
    with pytest.raises(ValueError, match='patch_size=8.*patches of 32'):
        SmallViT(**TINY, stem=dict(channels=[4, 4, 4, 4]))


@pytest.mark.parametrize('options', [
    dict(stem=dict(channels=[4, 4])),
    dict(shifted_windows=True),
    dict(stem=None, shifted_windows=False)
])
def test_configs_from_before_it_had_a_name(options):
    """``LoRAViT`` took the arguments; its checkpoints load strictly."""
    cfg = dict(type='mmblockdrop.LoRAViT', lora=dict(rank=2), **TINY)
    old = MODELS.build(dict(cfg, **options)).eval()
    new = SmallViT(**{k: v for k, v in cfg.items() if k != 'type'}, **options)
    assert type(old) is SmallViT
    new.load_state_dict(old.state_dict(), strict=True)
    for model in (new.eval(), copy.deepcopy(old)):
        assert torch.equal(model(clips()), old(clips()))
    assert type(MODELS.build(cfg)) is LoRAViT


NORMAL = dict(type='TruncNormal', layer='Linear', std=0.06, bias=0.)


def weights(*init_cfg: dict) -> dict:
    torch.manual_seed(0)
    vit = SmallViT(**TINY, init_cfg=list(init_cfg))
    vit.init_weights()
    return vit.state_dict()


def test_config_scales_the_named_layers_alone():
    last = ['attn.proj', 'mlp.layers.1']
    plain = weights(NORMAL)
    scaled = weights(
        NORMAL, dict(type='mmblockdrop.ScaleWeights', layers=last,
                     factor=0.5))
    changed = set()
    for name, value in scaled.items():
        if torch.equal(value, plain[name]):
            continue
        torch.testing.assert_close(value, plain[name] / 2)
        changed.add(name)
    assert changed == {
        f'blocks.{i}.{name}.weight' for i in range(2) for name in last
    }


@pytest.mark.parametrize('options,words', [
    (dict(layers='attn.proj', factor=0.5), 'expected a list'),
    (dict(layers=[], factor=0.5), 'expected a list'),
    (dict(layers=['attn.proj'], factor=float('nan')), 'factor=nan'),
])
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        ScaleWeights(**options)


def test_layer_that_is_not_there_is_named_beside_those_that_are():
    scale = ScaleWeights(['attn.out'], 0.5)
    with pytest.raises(ValueError, match=r"'attn.out'; .*attn\.proj"):
        scale(SmallViT(**TINY))
