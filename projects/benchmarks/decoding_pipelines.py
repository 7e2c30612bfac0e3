"""Ways to decode the windows of a video, ours and mmaction2's."""
import argparse
import json
import os.path as osp
from typing import Any, Dict, List, Sequence

from mmblockdrop.data.prepare.transcode import Recipe, transcode
from mmblockdrop.utils.video import Video

from mmcv.transforms import Compose
from mmengine.registry import DATASETS, TRANSFORMS

INIT = dict(type='mmaction.DecordInit')
DECODE = dict(type='mmaction.DecordDecode')
PACK = [
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs')
]


def pipelines(args: argparse.Namespace, folder: str) -> Dict[str, List[dict]]:
    """What is compared, by name; the first is the plain one.

    Args:
        args: Pixels.
        folder: Where frames may be kept.

    Returns:
        Name to the steps between record and decoded window.
    """
    scale = (args.pixels, args.pixels)
    resize = dict(type='mmaction.Resize', scale=scale, keep_ratio=False)
    cut = dict(type='mmblockdrop.SampleWindow')
    opener = dict(type='mmblockdrop.OpenVideo')
    kept = dict(
        type='mmblockdrop.CachedFrames',
        cache_dir=folder,
        transforms=[opener, DECODE, resize])
    return {
        'mmaction2: DecordInit, Resize': [INIT, cut, DECODE, resize],
        'ours: OpenVideo, Resize': [opener, cut, DECODE, resize],
        'ours: OpenVideo(size)': [dict(opener, size=scale), cut, DECODE],
        'ours: CachedFrames': [kept, cut, DECODE]
    }


def one_video_dataset(path: str, args: argparse.Namespace,
                      steps: Sequence[dict], folder: str) -> Any:
    """Sliding windows over one video.

    Args:
        path: The video.
        args: Window and stride.
        steps: Steps up to the decoded window.
        folder: Where an annotation file may be written.

    Returns:
        Its windows.
    """
    return many_videos_dataset([path], args, steps, folder)


def many_videos_dataset(paths: Sequence[str], args: argparse.Namespace,
                        steps: Sequence[dict], folder: str,
                        **kwargs: Any) -> Any:
    """Windows over some videos of a folder.

    Args:
        paths: Videos of one folder.
        args: Window and stride.
        steps: Steps up to the decoded window.
        folder: Where an annotation file may be written.
        **kwargs: Of the data set.

    Returns:
        Its windows.
    """
    database = {}
    for path in paths:
        reader = Video(path)
        fps = reader.fps
        seconds = len(reader) / fps
        database[osp.splitext(osp.basename(path))[0]] = dict(
            subset='all', fps=fps, frame=len(reader), duration=seconds,
            annotations=[dict(segment=[0.1 * seconds, 0.6 * seconds],
                              label='action')])
    ann_file = osp.join(folder, 'annotations.json')
    with open(ann_file, 'w') as file:
        json.dump(dict(database=database), file)
    cfg = dict(
        type='mmblockdrop.UntrimmedVideoDataset',
        ann_file=ann_file,
        data_prefix=dict(video=osp.dirname(osp.abspath(paths[0]))),
        classes=['action'],
        window_size=args.window,
        snippet_stride=args.stride,
        overlap_ratio=0.5,
        test_mode=True,
        pipeline=[*steps, *PACK])
    return DATASETS.build(dict(cfg, **kwargs))


def plain_windows(paths: Sequence[str], args: argparse.Namespace) -> int:
    """As many windows by mmaction2's own sampling, none of ours.

    Args:
        paths: The videos.
        args: Window, stride and pixels.

    Returns:
        Number of frames.
    """
    pipeline = Compose([
        TRANSFORMS.build(cfg) for cfg in (
            INIT,
            dict(type='mmaction.SampleFrames', clip_len=args.window,
                 frame_interval=args.stride, num_clips=1), DECODE,
            dict(type='mmaction.Resize', scale=(args.pixels, args.pixels),
                 keep_ratio=False),
            dict(type='mmaction.FormatShape', input_format='NCTHW'))
    ])
    frames = 0
    half = max(1, args.window // 2)
    for path in paths:
        steps = -(-len(Video(path)) // args.stride)
        for _ in range(max(1, -(-(steps - args.window) // half) + 1)):
            window = pipeline(dict(filename=path, start_index=0,
                                   modality='RGB'))
            frames += window['imgs'].shape[2]
    return frames


def re_encoded(paths: Sequence[str], args: argparse.Namespace,
               folder: str) -> List[str]:
    """The videos at their final size with close key frames."""
    recipe = Recipe(size=(args.pixels, args.pixels))
    small = []
    for path in paths:
        stem = osp.splitext(osp.basename(path))[0]
        small.append(osp.join(folder, f'{stem}.mp4'))
        transcode(path, small[-1], recipe)
    return small
