"""A video as decoded windows, by the test pipeline of a config."""
import json
import os.path as osp
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Union

from mmengine.registry import DATASETS
from torch import nn

from .clip_cache import clip_keys
from .loading import last_line, require_file

#: Settings of a data set that choose its videos, not how they are read.
CHOICE_OF_VIDEOS = ('split', 'sample_ratio', 'indices', 'subset', 'data_root',
                    'filename_tmpl', 'suffixes', 'drop_labels', 'block_list')


class Window(NamedTuple):
    """A decoded window of a video.

    Attributes:
        video: The video.
        frames: Its frames.
        fps: Its frames per second.
        index: Number of the window.
        count: Windows of the video.
        sample: What the pipeline gave.
        keys: :func:`.clip_cache.clip_keys` of the window, or none.
    """
    video: Union[str, Path]
    frames: int
    fps: float
    index: int
    count: int
    sample: Dict[str, Any]
    keys: List[bytes]

    @property
    def is_last(self) -> bool:
        """Whether the video ends here."""
        return self.index + 1 == self.count


def read_windows(model: nn.Module, videos: Iterable[Union[str, Path]],
                 clip_frames: int) -> Iterator[Window]:
    """Decode the windows of one video after another.

    Args:
        model: What :func:`mmblockdrop.apis.init_localizer` gave.
        videos: The videos.
        clip_frames: Frames of a clip, for the keys; 0 makes none.

    Yields:
        In order.

    Raises:
        FileNotFoundError: If there is no such video.
        ValueError: If a file is not a video or is damaged, or the config
            reads no frames.
    """
    for video in videos:
        frames, fps = probe(video)
        with tempfile.TemporaryDirectory() as folder:
            dataset = _one_video_dataset(model, Path(video), frames, fps,
                                         folder)
            for i in range(len(dataset)):
                sample = _decode(dataset, i, video)
                keys = clip_keys(sample['inputs'],
                                 clip_frames) if clip_frames else []
                yield Window(video, frames, fps, i, len(dataset), sample, keys)


def _decode(dataset: Any, index: int, video: Union[str, Path]) -> dict:
    """One window of the video."""
    try:
        return dataset[index]
    except RuntimeError as error:
        raise ValueError(f'{video} breaks off or is damaged in window '
                         f'{index + 1} of {len(dataset)}: {error}') from error


def probe(video: Union[str, Path]) -> tuple:
    """Number of frames and frame rate of a video.

    Args:
        video: The video.

    Returns:
        Frames, and frames per second.

    Raises:
        FileNotFoundError: If there is no such video.
        ValueError: If the file is not a video, or is damaged.
    """
    import decord
    require_file(video, 'video')
    try:
        reader = decord.VideoReader(str(video), num_threads=1)
        frames, fps = len(reader), float(reader.get_avg_fps())
    except Exception as error:  # decord raises RuntimeError or DECORDError
        raise ValueError(
            f'{video} cannot be read as a video: it is damaged, cut off or '
            f'something else ({last_line(error)})') from error
    if frames == 0 or not fps > 0:
        raise ValueError(f'{video} has {frames} frames at {fps} per second')
    return frames, fps


def _one_video_dataset(model: nn.Module, video: Path, frames: int, fps: float,
                       folder: str) -> Any:
    """The config's test data set on a file that lists this video only."""
    cfg = (model.cfg.get('test_dataloader') or {}).get('dataset')
    if cfg is None:
        raise ValueError(f'{model.cfg.filename} has no '
                         'test_dataloader.dataset, whose pipeline reads '
                         'the video')
    cfg = {k: v for k, v in cfg.items() if k not in CHOICE_OF_VIDEOS}
    if 'feature' in cfg.get('data_prefix', {}):
        raise ValueError(
            f'{model.cfg.filename} reads features '
            "(test_dataloader.dataset.data_prefix has the key 'feature'); "
            'localizing a video needs a config that reads frames')
    name = video.stem
    entry = dict(
        subset='test',
        duration=frames / fps,
        fps=fps,
        frame=frames,
        annotations=[])
    ann_file = osp.join(folder, 'annotations.json')
    Path(ann_file).write_text(json.dumps(dict(database={name: entry})))
    head = getattr(model, 'head', None)
    classes = model.dataset_meta.get('classes') or [
        str(i) for i in range(getattr(head, 'num_classes', 1))
    ]
    cfg.update(
        ann_file=ann_file,
        data_prefix=dict(video=str(video.resolve().parent)),
        suffixes=[video.suffix],
        classes=list(classes),
        test_mode=True,
        max_broken_share=0.,
        pipeline=without_cache(cfg['pipeline']))
    return DATASETS.build(cfg)


def without_cache(pipeline: List[dict]) -> List[dict]:
    """Decode where a pipeline would read frames kept on disk.

    Args:
        pipeline: Test pipeline of a data set.

    Returns:
        The same with what ``mmblockdrop.CachedFrames`` does to a whole video
        done to the frames of the window.
    """
    result: List[dict] = []
    waiting: List[dict] = []
    for step in pipeline:
        kind = str(step['type']).rsplit('.', 1)[-1]
        if kind == 'CachedFrames':
            opener, *waiting = step['transforms']
            result.append(opener)
        elif kind == 'DecordDecode' and waiting:
            result += waiting
            waiting = []
        else:
            result.append(step)
    return result
