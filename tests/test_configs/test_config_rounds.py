"""One small round of every kind of block-drop config."""
import json
from pathlib import Path

from mmblockdrop.apis import localize_video
from mmblockdrop.compression import replay
from mmblockdrop.registry import MODELS

import pytest
import torch
from config_kit import (PUBLIC, datasets, find, kind_of, localizer_of, read,
                        shorten_windows, shrink, untrained, use_data,
                        write_data)
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

SMALL = 'vit-small-p16-lora_'
#: One config of every kind and data set; THUMOS14 has a test of its own.
ROUNDS = [
    'thumos14-all-drop',
    find(f'configs/thumos14/blockdrop-published_{SMALL}'),
    find(f'configs/activitynet13/blockdrop_{SMALL}'),
    find(f'configs/multithumos/blockdrop_{SMALL}'),
    find(f'configs/fineaction/blockdrop_{SMALL}'),
    find('configs/demo_actions/blockdrop_'),
    find('projects/ceiling_adl/configs/blockdrop_'),
    find('projects/grid_words/configs/blockdrop_')
]


def small(path, tmp_path, work_dir='run'):
    """A config at a size that runs in seconds, with data to run on."""
    cfg = read(path)
    kind = kind_of(path)
    subsets = dict(training=3, validation=1)
    if kind not in PUBLIC:
        subsets['test'] = 1
    frames = shorten_windows(cfg)
    folder = tmp_path / kind
    if not folder.exists():
        folder = write_data(tmp_path, kind, subsets, frames + 8)
    return shrink(use_data(cfg, folder), tmp_path / work_dir)


def run(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def check_round(cfg):
    """The result of a round fits the plain localizer; returns the model."""
    work_dir = Path(cfg.work_dir)
    record = json.loads((work_dir / 'blockdrop.json').read_text())
    entry, = record['rounds']
    assert record['finished'] and record['depth'] == 3
    assert len(entry['dropped']) == 1 and len(entry['blocks_left']) == 2
    assert sorted(entry['scores']) == ['0', '1', '2']
    assert set(entry['epochs']) == {'0', '1'}
    assert (work_dir / 'timeline.png').stat().st_size > 5000
    content = torch.load(work_dir / 'round_1.pth', weights_only=False)
    localizer = localizer_of(cfg).copy()
    localizer.backbone.lora = None
    model = MODELS.build(localizer)
    replay(model, content['meta']['blockdrop'])
    model.load_state_dict(content['state_dict'])
    return model


@pytest.mark.slow
@pytest.mark.parametrize('path', ROUNDS)
def test_one_round(tmp_path, path):
    cfg = small(path, tmp_path)
    cfg.model.checkpoint = untrained(cfg, tmp_path / 'trained.pth')
    run(cfg)
    model = check_round(cfg)
    if 'external_classifier' not in cfg.test_evaluator:
        return
    evaluator = Evaluator(cfg.test_evaluator)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator.dataset_meta = loader.dataset.metainfo
    model.eval()
    with torch.no_grad():
        for batch in loader:
            evaluator.process(model.test_step(batch), batch)
    metrics = evaluator.evaluate(len(loader.dataset))
    assert 0 <= metrics['tad/mAP'] <= 1
    model.cfg, model.dataset_meta = cfg, dict(classes=('action', ))
    found = localize_video(
        model, loader.dataset.filenames[0], progress=False)
    assert set(found['classes']) == set(loader.dataset.metainfo['classes'])
    assert len(found['labels']) and {
        row['label'] for row in found['detections']
    } <= set(found['classes'])


@pytest.mark.slow
def test_from_the_baseline_to_a_shorter_model(tmp_path):
    """LoRA of the baseline is merged; the average of its weights goes on."""
    baseline = small(
        find(f'configs/thumos14/actionformer_{SMALL}'), tmp_path, 'baseline')
    runner = run(baseline)
    trained = [name for name, p in runner.model.named_parameters()
               if p.requires_grad and name.startswith('backbone')]
    assert trained and all(
        any(part in name for part in ('lora_', 'norm', 'patch_embed'))
        for name in trained)
    cfg = small(find(f'configs/thumos14/blockdrop_{SMALL}'), tmp_path)
    checkpoint = Path(baseline.work_dir) / 'epoch_1.pth'
    assert 'ema_state_dict' in torch.load(checkpoint, weights_only=False)
    cfg.model.checkpoint = str(checkpoint)
    assert datasets(cfg)['rounds'] == datasets(cfg)['score']
    run(cfg)
    check_round(cfg)
