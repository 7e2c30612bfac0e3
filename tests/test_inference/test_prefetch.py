"""Many videos at once give what each gives alone."""
import copy
import threading
import time

from mmblockdrop.apis import init_localizer
from mmblockdrop.backbones import LoRAViT
from mmblockdrop.inference.clip_cache import ClipMemory, clip_keys, encoder_of
from mmblockdrop.inference.localize import localize_video, localize_videos
from mmblockdrop.inference.prefetch import ahead

import numpy as np
import pytest
import torch
from test_localize import make_config, video  # noqa: F401


def mix_neighbours(feats, clips_per_window):
    """Features [N, ...] of clips, each with the clip before it mixed in."""
    windows = feats.unflatten(0, (-1, clips_per_window))
    before = torch.cat((windows[:, :1], windows[:, :-1]), 1)
    return (windows + before).flatten(0, 1) / 2


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return make_config(tmp_path_factory.mktemp('config'))


def same(found, wanted):
    np.testing.assert_allclose(found['segments'], wanted['segments'],
                               atol=1e-4)
    np.testing.assert_allclose(found['scores'], wanted['scores'], atol=1e-5)
    assert (found['labels'] == wanted['labels']).all()


def plain(model, path):
    return localize_video(
        model, path, read_ahead=0, reuse_clips=False, progress=False)


@pytest.mark.slow
def test_batches_threads_and_shared_clips_change_nothing(
        config, video, tmp_path):  # noqa: F811
    model = init_localizer(config, device='cpu')
    other = tmp_path / 'other.mp4'
    other.write_bytes(video.read_bytes())
    wanted = plain(model, video)
    for settings in (dict(batch_size=4), dict(reuse_clips=False),
                     dict(batch_size=3, read_ahead=0)):
        pair = list(localize_videos(model, [video, other], progress=False,
                                    **settings))
        assert [found['video'] for found in pair] == [str(video), str(other)]
        for found in pair:
            same(found, wanted)
    rough = localize_video(model, video, precision='bf16', progress=False)
    np.testing.assert_allclose(
        np.sort(rough['scores']), np.sort(wanted['scores']), atol=0.05)


def test_a_clip_of_two_windows_is_encoded_once(
        config, video):  # noqa: F811
    model = init_localizer(config, device='cpu')
    wanted = plain(model, video)
    seen = []
    model.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(len(args[0])))
    same(localize_video(model, video, progress=False), wanted)
    # Windows of 32 steps, 4 clips, start at steps 0, 16, 32 and 43 of 75:
    # the second and the third share half with the one before.
    assert seen == [4, 2, 2, 4]
    same(localize_video(model, video, progress=False), wanted)


class NeighbourViT(LoRAViT):
    """Half of a clip's features are those of the clip before it."""
    clip_independent = False

    def forward(self, x, clips_per_window):
        return mix_neighbours(super().forward(x), clips_per_window)


class UndeclaredViT(NeighbourViT):
    """The same without a word."""
    clip_independent = None


@pytest.mark.parametrize('backbone', [NeighbourViT, UndeclaredViT])
def test_clips_that_depend_on_their_neighbours_are_not_reused(
        config, video, backbone):  # noqa: F811
    model = init_localizer(config, device='cpu')
    model.backbone.__class__ = backbone
    wanted = plain(model, video)
    seen = []
    model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(
            (len(args[0]), kwargs['clips_per_window'])),
        with_kwargs=True)
    same(localize_video(model, video, progress=False), wanted)
    assert seen[-4:] == [(4, 4)] * 4
    # The undeclared one is tried once: two clips apart, and together.
    assert seen[:-4] == ([] if backbone is NeighbourViT else [(1, 1), (1, 1),
                                                              (2, 2)])


def test_a_model_with_its_encoder_elsewhere_is_left_alone():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert encoder_of(model) is None
    memory = ClipMemory(encoder_of(model))
    with memory.serving([[b'key']]):
        model(torch.ones(1, 2))
    assert memory.encoded == memory.reused == 0


def test_the_memory_leaves_the_encoder_as_it_was(config):
    model = init_localizer(config, device='cpu')
    encoder = encoder_of(model)
    memory = ClipMemory(encoder)
    window = torch.randint(0, 255, (1, 3, 64, 32, 32), dtype=torch.uint8)
    keys = clip_keys(window, 16)
    assert len(set(keys)) == 4
    with pytest.raises(OSError):
        with memory.serving([keys]):
            assert encoder.clip_cache is memory
            raise OSError
    assert encoder.clip_cache is None
    with memory.serving([[]]):
        assert encoder.clip_cache is None
    assert clip_keys(window[:, :, :40], 16) == []
    double = copy.deepcopy(window)
    double[:, :, :16] = double[:, :, 16:32]
    assert len(set(clip_keys(double, 16))) == 3


def test_work_is_done_ahead_and_in_order():
    made = []

    def make():
        for i in range(6):
            made.append(i)
            yield i

    stream = ahead(make(), 2)
    assert next(stream) == 0
    deadline = time.monotonic() + 20
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2, 3], 'one in hand, two wait, one is being put'
    assert list(stream) == [1, 2, 3, 4, 5]
    assert list(ahead(range(3), 0)) == [0, 1, 2]


def test_errors_come_where_their_item_would():

    def make():
        yield 1
        raise ValueError('broken')

    stream = ahead(make())
    assert next(stream) == 1
    with pytest.raises(ValueError, match='broken'):
        next(stream)
    before = threading.active_count()
    stream = ahead(iter(range(100)))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_damaged_video_is_named_and_those_before_it_are_done(
        config, video, tmp_path):  # noqa: F811
    model = init_localizer(config, device='cpu')
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video')
    stream = localize_videos(model, [video, broken], progress=False)
    assert len(next(stream)['scores']) == 9
    with pytest.raises(ValueError, match="cannot read '.*broken.mp4'"):
        next(stream)
    with pytest.raises(ValueError, match="precision='fp8'"):
        next(localize_videos(model, [video], precision='fp8'))
