"""Initial weights that configs name."""
from mmblockdrop.backbones.initialize import ScaleWeights
from mmblockdrop.backbones.vit import LoRAViT

import pytest
import torch

SIZES = dict(
    img_size=16, patch_size=8, embed_dims=16, depth=2, num_heads=2,
    num_frames=4)
NORMAL = dict(type='TruncNormal', layer='Linear', std=0.06, bias=0.)


def weights(*init_cfg: dict) -> dict:
    torch.manual_seed(0)
    vit = LoRAViT(**SIZES, init_cfg=list(init_cfg))
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
        scale(LoRAViT(**SIZES))
