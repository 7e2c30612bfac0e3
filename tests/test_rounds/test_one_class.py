"""Data of one class: trained, compressed, tested."""
import copy
from typing import Any, Dict

from mmblockdrop.registry import DATASETS

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.runner import Runner
from rounds_kit import read_record, train

pytestmark = pytest.mark.usefixtures('unmeasured')


@DATASETS.register_module()
class OneClassVideos(toy.ToyVideos):
    metainfo = dict(classes=['action'])

    @staticmethod
    def _make(seed: int) -> Dict[str, Any]:
        sample = toy.ToyVideos._make(seed)
        sample['data_samples'].gt_instances.labels[:] = 0
        sample['data_samples'].video_labels[:] = 0
        return sample


def one_class(cfg: Config) -> Config:
    cfg = Config(copy.deepcopy(cfg.to_dict()), format_python_code=False)
    cfg.model.get('localizer', cfg.model).head.num_classes = 1
    loaders = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]
    if 'score_dataloader' in cfg.train_cfg:
        loaders.append(cfg.train_cfg.score_dataloader)
    for loader in loaders:
        loader.dataset.type = 'mmblockdrop.OneClassVideos'
    cfg.log_level = 'ERROR'
    return cfg


@pytest.mark.parametrize('loss', [None, 'mmblockdrop.ClassKLLoss'])
def test_one_class(tmp_path, loss):
    baseline = one_class(toy.config(tmp_path / 'baseline'))
    train(baseline)
    cfg = one_class(
        toy.block_drop(
            tmp_path / 'run', tmp_path / 'baseline/epoch_1.pth', drops=1))
    if loss is not None:
        cfg.model.alignments = dict(
            cls=dict(type='mmblockdrop.ClassAlignment', loss=dict(type=loss)))
    train(cfg)
    record = read_record(tmp_path / 'run')
    assert record['finished'] and len(record['rounds']) == 1
    cfg.load_from = str(tmp_path / 'run' / 'round_1.pth')
    metrics = Runner.from_cfg(cfg).test()
    assert metrics['tad/mAP'] == pytest.approx(
        record['rounds'][0]['metric_after'])
    state = torch.load(cfg.load_from, weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())
