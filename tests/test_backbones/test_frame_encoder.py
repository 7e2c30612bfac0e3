"""Image encoders frame by frame: class token and patches, pretrained."""
import copy

from mmblockdrop.backbones import FrameEncoder

import pytest
import torch

CLIPS = torch.randn(2, 3, 4, 28, 28)
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(
        embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=16),
    img_size=28,
    patch_size=14,
    out_type='raw')


def frame_encoder(pretrained=None, **options):
    return FrameEncoder(
        dict(copy.deepcopy(VIT), **options), pretrained=pretrained).eval()


def test_transformer_gives_class_token_and_mean_of_patches():
    frames = frame_encoder()
    tokens = frames.encoder(CLIPS.transpose(1, 2).flatten(0, 1))[-1]
    found = frames(CLIPS)
    assert found.shape == (2, 16, 4, 1, 1)
    found = found.transpose(1, 2).flatten(0, 1)[..., 0, 0]
    torch.testing.assert_close(found[:, :8], tokens[:, 0])
    torch.testing.assert_close(found[:, 8:], tokens[:, 1:].mean(1))


def test_without_class_token_the_mean_alone():
    frames = frame_encoder(with_cls_token=False)
    assert frames(CLIPS).shape == (2, 8, 4, 1, 1)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_pretrained_weights_of_another_size_are_loaded(tmp_path, prefix):
    source = frame_encoder(img_size=56)
    torch.nn.init.normal_(source.encoder.pos_embed)
    state = {prefix + k: v for k, v in source.encoder.state_dict().items()}
    state[f'{prefix}mask_token'] = torch.zeros(1, 8)
    path = tmp_path / 'vit.pth'
    torch.save(dict(state_dict=state), path)
    frames = frame_encoder(str(path))
    frames.init_weights()
    own, other = frames.encoder.state_dict(), source.encoder.state_dict()
    assert own['pos_embed'].shape == (1, 5, 8)
    torch.testing.assert_close(own['pos_embed'][:, 0],
                               other['pos_embed'][:, 0])
    for name in set(own) - {'pos_embed'}:
        torch.testing.assert_close(own[name], other[name])


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / 'vit.pth'
    state = frame_encoder().encoder.state_dict()
    del state['ln1.weight']
    torch.save(state, path)
    frames = frame_encoder(str(path))
    with pytest.raises(ValueError, match='backbone.pretrained.*ln1.weight'):
        frames.init_weights()
