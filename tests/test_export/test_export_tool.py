"""``tools/export.py``: files that stand for themselves."""
import copy
import json

from mmblockdrop.apis import init_localizer
from mmblockdrop.export import network

import export
import export_kit
import pytest
import torch
import toy
from mmengine.config import Config

FRAMES = ['1', '1', '3', str(toy.FRAMES), str(toy.SIZE), str(toy.SIZE)]


@pytest.fixture(scope='module')
def toy_export(tmp_path_factory):
    """The toy localizer, compressed, with LoRA in the checkpoint."""
    folder = tmp_path_factory.mktemp('export') / 'toy'
    paths = export_kit.save(
        folder, toy.localizer(), [1, 2], lora=dict(rank=2))
    assert export.main([*paths, str(folder), '--shape', *FRAMES]) == 0
    return folder, paths


def output(model, inputs):
    with torch.no_grad():
        return network(model)(inputs)


def test_exported_localizer_is_short_and_the_same(toy_export):
    folder, paths = toy_export
    before = init_localizer(*paths, device='cpu')
    after = init_localizer(
        str(folder / 'model.py'), str(folder / 'model.pth'), device='cpu')
    assert len(before.backbone.blocks) == 4
    assert len(after.backbone.blocks) == 2
    assert type(after.backbone).__name__ == 'VisionTransformer'
    inputs = torch.randn(2, 1, 3, toy.FRAMES, toy.SIZE, toy.SIZE)
    for a, b in zip(output(before, inputs), output(after, inputs)):
        assert torch.allclose(a.float(), b.float(), atol=1e-5)


def test_exported_config_inherits_nothing(toy_export):
    folder, _ = toy_export
    text = (folder / 'model.py').read_text()
    assert '_base_' not in text and 'train_cfg' not in text
    cfg = Config.fromfile(folder / 'model.py')
    assert cfg.custom_imports.imports == ['mmblockdrop']
    assert cfg.model.backbone.depth == 2
    assert cfg.test_dataloader and cfg.test_evaluator
    state = torch.load(folder / 'model.pth', weights_only=True)
    blocks = {k.split('.')[2] for k in state['state_dict']
              if k.startswith('backbone.blocks.')}
    assert blocks == {'0', '1'}
    assert 'blockdrop' not in state['meta']


def test_report_says_what_needs_us(toy_export):
    folder, paths = toy_export
    report = json.loads((folder / 'export.json').read_text())
    assert report['stacks'] == [
        dict(path='backbone.blocks', kept=[0, 3], dropped=[1, 2])
    ]
    assert 'model: mmblockdrop.ActionFormer' in report['needs_mmblockdrop']
    assert not any('backbone' in n for n in report['needs_mmblockdrop'])
    assert report['max_difference'] < 1e-5
    assert report['source'] == paths[1]
    for name, size in report['files'].items():
        assert (folder / name).stat().st_size == size


@pytest.mark.slow
def test_mmaction_loads_the_files_without_mmblockdrop(toy_export, tmp_path):
    """A recognizer, a BMN, and the encoder of our localizer."""
    folder, paths = toy_export
    lora_vit = copy.deepcopy(export_kit.RECOGNIZER)
    lora_vit['backbone'].update(
        type='mmblockdrop.LoRAViT', return_feat_map=False)
    cases = [(tmp_path / 'vit', export_kit.RECOGNIZER, [2]),
             (tmp_path / 'lora', lora_vit, [0, 3]),
             (tmp_path / 'bmn', export_kit.BMN, [])]
    expected = {}
    for case, model_cfg, drop in cases:
        found = export_kit.save(case, model_cfg, drop)
        shape = [] if model_cfg['type'] == 'BMN' else [
            '--shape', '1', '1', '3', '4', '16', '16'
        ]
        assert export.main([*found, str(case), *shape]) == 0
        assert json.loads(
            (case / 'export.json').read_text())['needs_mmblockdrop'] == []
        assert 'mmblockdrop' not in (case / 'model.py').read_text()
        before = init_localizer(*found, device='cpu')
        inputs = torch.randn(3, 1, 3, 4, 16, 16)
        if model_cfg['type'] == 'BMN':
            inputs = torch.randn(3, 8, 8)
        expected[case] = output(before, inputs)
        if model_cfg['type'] == 'BMN':
            inputs = list(inputs)
        torch.save(inputs, case / 'inputs.pt')
    before = init_localizer(*paths, device='cpu')
    clips = torch.randn(2, 1, 3, toy.CLIP, toy.SIZE, toy.SIZE)
    torch.save(clips, folder / 'inputs.pt')
    expected[folder] = output(before.backbone, clips.squeeze(1))
    export_kit.without_mmblockdrop(*expected)
    for case, outputs in expected.items():
        alone = torch.load(case / 'alone.pt')
        alone = alone if isinstance(alone, tuple) else (alone, )
        assert len(alone) == len(outputs)
        for a, b in zip(outputs, alone):
            assert torch.allclose(a, b, atol=1e-5), case


def test_convolutional_stem_stays_ours(tmp_path):
    model_cfg = toy.localizer(stem=dict(channels=[4, 8]))
    paths = export_kit.save(tmp_path, model_cfg, [1])
    assert export.main([*paths, str(tmp_path), '--shape', *FRAMES]) == 0
    report = json.loads((tmp_path / 'export.json').read_text())
    assert 'backbone: mmblockdrop.LoRAViT' in report['needs_mmblockdrop']
    assert not (tmp_path / 'encoder.py').exists()
    cfg = Config.fromfile(tmp_path / 'model.py')
    assert cfg.model.backbone.depth == 3
    assert cfg.model.backbone.stem.channels == [4, 8]


@pytest.mark.parametrize('shifted', [True, [False, True, False, True]])
def test_windows_of_the_blocks_that_are_left_are_kept(tmp_path, shifted):
    model_cfg = toy.localizer(
        depth=4, num_frames=4, shifted_windows=shifted)
    paths = export_kit.save(tmp_path, model_cfg, [1])
    assert export.main([*paths, str(tmp_path), '--shape', *FRAMES]) == 0
    cfg = Config.fromfile(tmp_path / 'model.py')
    assert cfg.model.backbone.type == 'mmblockdrop.LoRAViT'
    assert cfg.model.backbone.shifted_windows == [False, False, True]


def test_nothing_is_written_where_no_config_fits(tmp_path, capsys):
    paths = export_kit.save(tmp_path, export_kit.BMN, [0],
                            ['x_1d_b.2', 'x_2d_p.2'])
    out = tmp_path / 'out'
    assert export.main([*paths, str(out)]) == 1
    message = capsys.readouterr().err
    assert 'x_1d_b without the blocks [2]' in message
    assert 'ONNX' in message and not out.exists()


def test_config_without_shape_asks_for_it(tmp_path, capsys):
    paths = export_kit.save(tmp_path, export_kit.RECOGNIZER, [1])
    assert export.main([*paths, str(tmp_path / 'out')]) == 1
    assert '--shape 1 1 3 16 224 224' in capsys.readouterr().err


def test_wrong_checkpoint_names_the_nearest(tmp_path, capsys):
    paths = export_kit.save(tmp_path, export_kit.RECOGNIZER, [1])
    wrong = paths[1].replace('before', 'befor')
    assert export.main([paths[0], wrong, str(tmp_path / 'out')]) == 1
    assert 'model_before.pth' in capsys.readouterr().err


def test_config_whose_types_are_classes(tmp_path):
    """mmengine's new style; the files that are written have text."""
    _, checkpoint = export_kit.save(tmp_path, export_kit.RECOGNIZER, [1])
    config = tmp_path / 'new_style.py'
    config.write_text(NEW_STYLE)
    assert export.main([
        str(config), checkpoint, str(tmp_path / 'out'), '--shape', '1', '1',
        '3', '4', '16', '16'
    ]) == 0
    cfg = Config.fromfile(tmp_path / 'out' / 'model.py')
    assert cfg.model.backbone.type == 'mmaction.VisionTransformer'
    assert cfg.model.backbone.depth == 3
    assert cfg.test_dataloader.sampler.type == 'mmengine.DefaultSampler'
    model = init_localizer(
        cfg, str(tmp_path / 'out' / 'model.pth'), device='cpu')
    assert len(model.backbone.blocks) == 3


NEW_STYLE = '''
from mmaction.datasets import VideoDataset
from mmaction.models import (ActionDataPreprocessor, Recognizer3D,
                             TimeSformerHead, VisionTransformer)
from mmengine.dataset import DefaultSampler
model = dict(
    type=Recognizer3D,
    backbone=dict(
        type=VisionTransformer, img_size=16, patch_size=8, embed_dims=16,
        depth=4, num_heads=2, num_frames=4),
    cls_head=dict(type=TimeSformerHead, num_classes=3, in_channels=16),
    data_preprocessor=dict(
        type=ActionDataPreprocessor, mean=[120.] * 3, std=[60.] * 3,
        format_shape='NCTHW'))
test_dataloader = dict(
    dataset=dict(type=VideoDataset, ann_file='test.txt', pipeline=[]),
    sampler=dict(type=DefaultSampler, shuffle=False))
'''
