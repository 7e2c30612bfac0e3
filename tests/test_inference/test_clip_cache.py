"""Clips that several windows show are encoded once in a test run."""
import copy

from mmblockdrop.backbones import LoRAViT
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.registry import DATASETS
from mmengine.runner import Runner

WINDOWS, STRIDE = 5, toy.FRAMES // 2


@DATASETS.register_module()
class OverlappingWindows(toy.ToyVideos):
    """Windows of one video that overlap by a clip."""

    def __init__(self) -> None:
        super().__init__(WINDOWS, 4)
        frames = torch.cat([s['inputs'] for s in self.samples], dim=2)
        for i, sample in enumerate(self.samples):
            start = i * STRIDE
            sample['inputs'] = frames[:, :, start:start + toy.FRAMES].clone()


@DATASETS.register_module()
class FeatureWindows(toy.ToyVideos):
    """Windows of features instead of frames."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        for sample in self.samples:
            sample['inputs'] = torch.ones(16, toy.STEPS)


def run_test(tmp_path, hooks, model):
    """The metrics of a test run, and the clips that its encoder saw."""
    loader = toy.loader(0, 0)
    loader['dataset'] = dict(type='mmengine.OverlappingWindows')
    cfg = toy.config(
        tmp_path, test_dataloader=loader, custom_hooks=hooks, model=model)
    cfg.experiment_name = f'{tmp_path.name}_{len(hooks)}'
    runner = Runner.from_cfg(cfg)
    localizer = getattr(runner.model, 'student', runner.model)
    backbone, seen = localizer.backbone, []
    backbone.register_forward_pre_hook(
        lambda module, args: seen.append(len(args[0])))
    metrics = runner.test()
    assert localizer.backbone is backbone
    return metrics, seen


@pytest.mark.parametrize('name', ['localizer', 'student'])
def test_shared_clips_are_encoded_once(tmp_path, name):
    torch.manual_seed(0)
    model = toy.localizer()
    if name == 'student':
        checkpoint = tmp_path / 'teacher.pth'
        torch.save(
            dict(state_dict=MODELS.build(copy.deepcopy(model)).state_dict()),
            checkpoint)
        model = dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=model,
            checkpoint=str(checkpoint))
    plain, seen = run_test(tmp_path / 'plain', [], copy.deepcopy(model))
    assert seen == [4, 4, 2]
    hook = dict(type='mmblockdrop.ReuseClipsHook')
    found, seen = run_test(tmp_path / 'shared', [hook], model)
    # Windows hold clips 01 12 | 23 34 | 45.
    assert seen == [3, 2, 1]
    assert found.keys() == plain.keys()
    for key, value in plain.items():  # numbers, and intervals of two
        assert found[key] == pytest.approx(value, abs=1e-6)


@MODELS.register_module()
class NeighbourEncoder(LoRAViT):
    """Adds the clip before to each clip; does not say so."""
    clip_independent = None

    def forward(self, x, clips_per_window):
        windows = super().forward(x).unflatten(0, (-1, clips_per_window))
        before = torch.cat((windows[:, :1], windows[:, :-1]), 1)
        return (windows + before).flatten(0, 1)


def test_clips_that_depend_on_their_neighbours_are_not_reused(tmp_path):
    model = toy.localizer(type='mmblockdrop.NeighbourEncoder')
    torch.manual_seed(0)
    plain, seen = run_test(tmp_path / 'plain', [], copy.deepcopy(model))
    assert seen == [4, 4, 2]
    torch.manual_seed(0)
    hook = dict(type='mmblockdrop.ReuseClipsHook')
    found, seen = run_test(tmp_path / 'hook', [hook], model)
    assert seen == [1, 1, 2] + [4, 4, 2], 'tried once, then as without hook'
    assert found == plain


def test_features_are_left_alone(tmp_path):
    loader = toy.loader(0, 0)
    loader['dataset'] = dict(type='mmengine.FeatureWindows')
    model = dict(toy.localizer(), backbone=None, data_preprocessor=None)
    cfg = toy.config(
        tmp_path,
        test_dataloader=loader,
        custom_hooks=[dict(type='mmblockdrop.ReuseClipsHook')],
        model=model,
        experiment_name=tmp_path.name)
    assert Runner.from_cfg(cfg).test()
