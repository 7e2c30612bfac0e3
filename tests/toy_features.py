"""Features, annotations and proposals of a few videos, in mmaction2's files.

Actions are stretches in which the first channels are high, so that tiny
localizers have something to find.
"""
import json
from pathlib import Path
from typing import Any, Dict, List

from mmblockdrop.registry import MODELS

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

STEPS, CHANNELS, SECONDS, INTERVAL = 8, 16, 20., 16
CLASSES = ('jump', 'run')


def write_videos(folder: Path, count: int = 4) -> Dict[str, Any]:
    """Write features as CSV and annotations as JSON.

    Args:
        folder: Where to.
        count: Number of videos.

    Returns:
        The annotations by video.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    header = ','.join(f'f{i}' for i in range(CHANNELS))
    videos = {}
    for k in range(count):
        start = int(rng.integers(0, STEPS - 4))
        stop = start + int(rng.integers(2, 5))
        features = rng.normal(0, .3, (STEPS, CHANNELS))
        features[start:stop, :CHANNELS // 2] += 1
        name = f'v_{k:03d}'
        np.savetxt(
            folder / f'{name}.csv',
            features,
            delimiter=',',
            header=header,
            comments='')
        step = SECONDS / STEPS
        segment = [start * step, stop * step]
        videos[name] = dict(
            duration_second=SECONDS,
            duration_frame=STEPS * INTERVAL,
            feature_frame=STEPS * INTERVAL,
            annotations=[dict(segment=segment, label=CLASSES[k % 2])],
            proposals=[[start / STEPS, stop / STEPS, .9],
                       [max(start - 1, 0) / STEPS, stop / STEPS, .5],
                       [0., 1., .3]])
    (folder / 'annotations.json').write_text(json.dumps(videos))
    write_proposals(folder, videos)
    return videos


def write_proposals(folder: Path, videos: Dict[str, Any]) -> None:
    """Write what BSN's PEM reads: proposals and their features."""
    (folder / 'pgm').mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    header = 'tmin,tmax,tmin_score,tmax_score,score,match_iou,match_ioa'
    for name, video in videos.items():
        rows = [[*p[:2], .8, .7, .56, iou, iou]
                for p, iou in zip(video['proposals'], (.9, .4, .1))]
        np.savetxt(
            folder / 'pgm' / f'{name}.csv',
            rows,
            delimiter=',',
            header=header,
            comments='')
        np.save(folder / 'pgm' / f'{name}.npy',
                rng.normal(0, 1, (len(rows), 32)).astype(np.float32))


def shrink(cfg: Config, folder: Path, work_dir: Path, **model: Any) -> Config:
    """A config on the videos of :func:`write_videos`, at test size.

    Args:
        cfg: Config of a localizer on features, ours or mmaction2's.
        folder: Features and annotations.
        work_dir: Work directory.
        **model: Arguments of the localizer to set.

    Returns:
        The changed config.
    """
    localizer = cfg.model.get('localizer', cfg.model)
    localizer.update(model)
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.batch_size = min(loader.batch_size, 2)
        loader.dataset.update(
            ann_file=str(folder / 'annotations.json'),
            data_prefix=dict(video=str(folder)))
        for step in loader.dataset.pipeline:
            if step.type == 'LoadProposals':
                step.update(
                    pgm_proposals_dir=f'{folder}/pgm',
                    pgm_features_dir=f'{folder}/pgm')
        evaluator = cfg.get(f'{part}_evaluator', {})
        if 'dump_config' in evaluator:
            evaluator.dump_config.out = str(work_dir / 'results.json')
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'ERROR'
    cfg.visualizer = dict(type='Visualizer', vis_backends=None)
    cfg.randomness = dict(seed=0)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}'
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    # Formatting the text of a config takes longer than the run.
    return Config(cfg.to_dict(), format_python_code=False)


def build(cfg: Config) -> torch.nn.Module:
    """A localizer with weights that matter, from its config."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    return MODELS.build(cfg.model.get('localizer', cfg.model))


def save(model: torch.nn.Module, path: Path) -> str:
    """Write a checkpoint as mmengine does.

    Args:
        model: Localizer.
        path: File.

    Returns:
        Its path.
    """
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


def train(cfg: Config) -> Runner:
    """Run a config through a plain runner."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def record(work_dir: Path) -> Dict[str, Any]:
    """What a block-drop run left behind."""
    return json.loads((work_dir / 'blockdrop.json').read_text())


def dropped(work_dir: Path) -> List[int]:
    """Blocks that a run has dropped."""
    return [i for r in record(work_dir)['rounds'] for i in r['dropped']]
