"""``pretrained`` of mmaction2's VideoMAE encoder."""
import pytest
import torch
from torch import nn


def tiny_vit(**kwargs) -> nn.Module:
    from mmaction.models import VisionTransformer
    return VisionTransformer(
        img_size=16,
        embed_dims=4,
        depth=1,
        num_heads=1,
        num_frames=2,
        **kwargs)


@pytest.mark.parametrize('init_cfg', [
    dict(),
    dict(init_cfg=None),
    dict(init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02)),
])
def test_vit_loads_pretrained_weights(tmp_path, init_cfg):
    source = tiny_vit()
    path = str(tmp_path / 'vit.pth')
    torch.save(source.state_dict(), path)
    target = tiny_vit(pretrained=path, **init_cfg)
    target.init_weights()
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_vit_without_pretrained_is_left_alone():
    assert [entry['type']
            for entry in tiny_vit().init_cfg] == ['TruncNormal', 'Constant']


def test_vit_patch_is_needed():
    from mmaction.models import VisionTransformer
    vit = VisionTransformer.__new__(VisionTransformer)
    VisionTransformer.__init__.__wrapped__(
        vit, img_size=16, embed_dims=4, depth=1, num_heads=1, pretrained='x')
    assert all(entry['type'] != 'Pretrained' for entry in vit.init_cfg)
