"""Windows to features: clips, chunks, and clips that depend on others."""
import copy

from mmblockdrop.backbones import FrameEncoder, LoRAViT
from mmblockdrop.backbones.base import VideoEncoder, declared_independence

import pytest
import torch
from torch import nn

FRAMES = torch.randn(2, 3, 32, 8, 8)
VIT = dict(
    img_size=8, patch_size=4, embed_dims=4, depth=1, num_heads=2, num_frames=8)


class ClipNet(nn.Module):
    """A convolution; counts its calls."""

    def __init__(self, norm=None):
        super().__init__()
        self.conv = nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4))
        self.norm = nn.Identity() if norm is None else norm
        self.calls = []

    def forward(self, clips):
        self.calls.append(len(clips))
        return self.norm(self.conv(clips))


class WindowNet(ClipNet):
    """Adds to each clip the mean of its window."""
    clip_independent = False

    def forward(self, clips, clips_per_window):
        windows = super().forward(clips).unflatten(0, (-1, clips_per_window))
        return (windows + windows.mean(1, keepdim=True)).flatten(0, 1)


class QuietWindowNet(WindowNet):
    """The same, without saying so."""
    clip_independent = None


class NeedsFour(ClipNet):
    """Shifts along clips as mmaction2's TSM does, in fours."""

    def forward(self, clips):
        fours = super().forward(clips).unflatten(0, (-1, 4))
        return fours.roll(1, 1).flatten(0, 1)


def encoder(**kwargs):
    return VideoEncoder(**dict(dict(num_steps=16, clip_frames=8), **kwargs))


def clips_of(frames=FRAMES):
    return torch.cat(frames[:1].split(8, dim=2))


def test_windows_become_a_grid_of_steps():
    net = ClipNet()
    expected = torch.cat([net(x) for x in FRAMES.split(8, dim=2)],
                         dim=2).mean((-2, -1))
    found = encoder()(net, FRAMES)
    torch.testing.assert_close(found, expected)
    assert torch.equal(encoder()(net, FRAMES[:, None]), found)
    assert encoder(num_steps=5)(net, FRAMES).shape == (2, 6, 5)
    apart = encoder(pooling='concat')(net, FRAMES)
    torch.testing.assert_close(apart.unflatten(1, (6, 4)).mean(2), found)


def test_it_is_no_module_and_copies_with_its_owner():
    owner = nn.Module()
    owner.backbone, owner.encoder = ClipNet(), encoder()
    assert all(name.startswith('backbone.') for name in owner.state_dict())
    twin = copy.deepcopy(owner)
    assert twin.encoder is not owner.encoder
    assert torch.equal(
        twin.encoder(twin.backbone, FRAMES),
        owner.encoder(owner.backbone, FRAMES))


def test_images_are_clips_of_one_frame():
    net = nn.Conv2d(3, 6, 4, 4)
    found = encoder(num_steps=32, frame_wise=True)(net, FRAMES)
    expected = net(FRAMES.transpose(1, 2).flatten(0, 1)).mean((-2, -1))
    torch.testing.assert_close(
        found, expected.unflatten(0, (2, -1)).transpose(1, 2))


@pytest.mark.parametrize('net,seen', [
    (ClipNet(), [3, 3, 2]),
    (WindowNet(), [4, 4]),
    (QuietWindowNet(), [4, 4]),
])
def test_chunks_never_part_what_depends_on_each_other(net, seen):
    whole = encoder()(net, FRAMES)
    with torch.no_grad():
        net.calls.clear()
        found = encoder(clip_chunk=3)(net, FRAMES)
    assert net.calls == seen
    torch.testing.assert_close(found, whole)
    net.calls.clear()
    encoder(clip_chunk=3)(net, FRAMES)
    assert net.calls == [8], 'chunks are for passes without gradients'


def test_windows_of_a_batch_never_mix():
    net = WindowNet()
    alone = [encoder()(net, window[None]) for window in FRAMES]
    torch.testing.assert_close(encoder()(net, FRAMES), torch.cat(alone))


@pytest.mark.parametrize('net,expected', [
    (ClipNet(), True),
    (ClipNet(nn.BatchNorm3d(6).eval()), True),
    (ClipNet(nn.BatchNorm3d(6)), False),
    (ClipNet(nn.BatchNorm3d(6, track_running_stats=False).eval()), False),
    (ClipNet(nn.Dropout(0.5)), False),
    (WindowNet(), False),
    (QuietWindowNet(), False),
    (NeedsFour(), False),
    (LoRAViT(**VIT).eval(), True),
])
def test_whether_clips_are_independent_is_said_or_found_out(net, expected):
    assert encoder().independent(net, clips_of()) is expected


def test_declared_backbones_are_not_tried():
    net = WindowNet()
    assert not encoder().independent(net, clips_of())
    assert net.calls == []


class MixingViT(LoRAViT):
    """Overrides ``forward`` and inherits what its base declares of its own."""

    def forward(self, x):
        x = super().forward(x)
        return x + x.mean(0)


def test_a_declaration_is_for_the_forward_beside_it():
    assert declared_independence(LoRAViT(**VIT)) is True
    mixing = MixingViT(**VIT).eval()
    assert declared_independence(mixing) is None
    assert encoder().independent(mixing, clips_of()) is False
    mixing.clip_independent = False
    assert declared_independence(mixing) is False


def test_frames_are_as_independent_as_their_encoder_says():
    frames = FrameEncoder(
        dict(
            type='mmpretrain.ResNet_CIFAR',
            depth=18,
            base_channels=2,
            stem_channels=2))
    assert declared_independence(frames.train()) is False, 'batch statistics'
    assert declared_independence(frames.eval()) is None
    assert encoder().independent(frames, clips_of()) is True
    frames.encoder.clip_independent = False
    assert declared_independence(frames) is False


def test_unknown_pooling_is_named():
    with pytest.raises(ValueError, match="model.pooling.*'max'"):
        encoder(pooling='max')
