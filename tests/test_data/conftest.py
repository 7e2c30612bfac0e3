"""Data sets of tiny videos."""
import json
import logging
from typing import Any, Callable, Dict, Iterator, List

from mmblockdrop.registry import DATASETS

import pytest
from mmengine.logging import MMLogger
from tiny_videos import PIPELINE, write_video


@pytest.fixture
def root(tmp_path) -> Callable[..., str]:
    """Write a data set: ``root(name=dict(...entry, frames=...))``."""

    def make(entries: Dict[str, Dict[str, Any]], videos: bool = True) -> str:
        (tmp_path / 'videos').mkdir(exist_ok=True)
        database = {}
        for name, entry in entries.items():
            entry = dict(dict(frames=24, fps=10., subset='training'), **entry)
            frames = entry.pop('frames')
            entry.setdefault('duration', frames / entry['fps'])
            entry.setdefault('annotations',
                             [dict(segment=[0.5, 1.5], label='jump')])
            if videos and frames:
                write_video(tmp_path / 'videos' / f'{name}.mp4', frames,
                            entry['fps'])
            database[name] = entry
        (tmp_path / 'annotations.json').write_text(
            json.dumps(dict(database=database)))
        (tmp_path / 'category_idx.txt').write_text('jump\nrun\n')
        return str(tmp_path)

    return make


@pytest.fixture
def build(root) -> Callable[..., Any]:
    """Build a dataset over tiny videos, or over ``data_root``."""

    def make(entries=None, **kwargs):
        if entries is not None:
            kwargs.setdefault('data_root', root(entries))
        cfg = dict(
            type='mmblockdrop.UntrimmedVideoDataset',
            ann_file='annotations.json',
            classes='category_idx.txt',
            window_size=8,
            snippet_stride=2,
            frames_per_step=2,
            pipeline=PIPELINE)
        cfg.update(kwargs)
        return DATASETS.build(cfg)

    return make


@pytest.fixture
def logged() -> Iterator[List[str]]:
    """Messages that reach the log."""
    messages: List[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
