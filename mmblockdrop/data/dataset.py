"""Windows over untrimmed videos."""
import contextlib
import os.path as osp
import random
from os import listdir
from typing import (Any, Iterator, List, Mapping, Optional, Sequence, Tuple,
                    Union)

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.utils import track_iter_progress

from mmblockdrop.registry import DATASETS
from .annotations import (ActionReader, load_classes, load_database,
                          read_names, read_timing, select_subset, split_names)
from .broken import BrokenVideos, read_errors
from .files import (FEATURE_SUFFIXES, VIDEO_SUFFIXES, UnreadableVideoError,
                    find_media, nearest, open_video, probe_video,
                    require_path)
from .windows import (WINDOW_RULES, sample_indices, sliding_windows,
                      unique_actions, window_actions)

MODES = ('random', 'sliding', 'resize')
FRAME_RULES = ('exact', 'truncate')


def _choice(key: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f'{key}={value!r} is not known'
                         f'{nearest(value, choices)}')


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws of ``random`` and ``numpy`` from a seed, then as before."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@DATASETS.register_module()
class UntrimmedVideoDataset(BaseDataset):
    """Windows over untrimmed videos, or over features of them.

    A sample is a window of ``window_size`` steps of ``snippet_stride`` frames
    each, of which ``frames_per_step`` are decoded. The dataset says where the
    windows are and which actions the video has; the pipeline opens the video,
    cuts the window (``SampleWindow``) and packs it (``PackTADInputs``).

    An unreadable video is counted with a warning. In training another sample
    is drawn instead; in test mode its windows are black and have
    ``valid_steps=0``, so that its actions count as missed. Beyond
    ``max_broken_share`` of the videos the run stops.

    Args:
        ann_file (str): ActivityNet-style JSON, times in seconds.
        subset (str or list[str], optional): Exact names of the subsets to
            use. None takes all.
        classes (str or list[str], optional): Names, or a file of names (text
            or JSON) relative to ``data_root``. None takes the labels of
            ``ann_file`` in alphabetical order.
        window_size (int): Steps of a window.
        snippet_stride (int): Frames per step.
        frames_per_step (int): Frames decoded per step, a divisor of
            ``snippet_stride`` (``scale_factor`` of the published code).
        windows (str, optional): ``random``: one window per video, drawn
            around an action. ``sliding``: windows that overlap. ``resize``:
            the whole video on ``window_size`` steps. Defaults to ``sliding``
            in test mode, else ``random``.
        overlap_ratio (float): Overlap of sliding windows.
        action_thresh (float): Share of an action that must lie in a window
            to be its ground truth.
        crop_ratio (sequence of 2 floats, optional): Length of a random
            window of a video that is not longer than ``window_size``.
        windows_per_video (int): Random windows of each video in an epoch.
        split (dict, optional): ``dict(part='train'|'val', ratio=0.15,
            seed=0)`` takes one part of a fixed split of the videos.
        sample_ratio (float): Share of the videos to use, drawn by ``seed``.
        seed (int): Seed of ``sample_ratio`` and of the random windows.
        block_list (str or list[str], optional): Videos to leave out: names,
            or a file of names (text or JSON) relative to ``data_root``.
        drop_labels (sequence of str): Labels that are background. Any other
            label outside ``classes`` is an error.
        bad_segments (str): ``error`` or ``drop``, for segments that are
            reversed or outside the video.
        class_agnostic (bool): Whether all actions are of one class.
        fps (float, optional): Frames per second that overrides the
            annotation's, for features of another rate than the video.
        offset_frames (float): Frame of the first feature.
        data_root (str): Folder of relative paths.
        data_prefix (dict): ``dict(video=folder)`` or ``dict(feature=
            folder)``, or ``dict()`` for annotations alone.
        filename_tmpl (str): File name of a video, suffix apart.
        suffixes (sequence of str, optional): File suffixes to look for.
        max_broken_share (float): Share of videos that may be unreadable.
        window_rule (str): ``covering``, or ``published`` to repeat the
            windows of the published code; see :mod:`.windows`.
        frame_rule (str): ``exact``, or ``truncate`` to cut the boundaries of
            actions to whole frames as the published code does.
        filter_cfg (dict, optional): ``filter_empty`` (skip videos, and
            windows, without actions; defaults to True unless in test mode)
            and ``min_action_share`` (actions that take no more of the video
            are no ground truth; defaults to 0).
        **kwargs: ``pipeline``, ``test_mode``, ``metainfo``, ``indices``,
            ``lazy_init``, ``serialize_data`` and ``max_refetch`` of
            :class:`mmengine.dataset.BaseDataset`.
    """

    def __init__(self,
                 ann_file: str,
                 subset: Union[str, Sequence[str], None] = None,
                 classes: Union[str, Sequence[str], None] = None,
                 window_size: int = 256,
                 snippet_stride: int = 4,
                 frames_per_step: int = 1,
                 windows: Optional[str] = None,
                 overlap_ratio: float = 0.5,
                 action_thresh: float = 0.75,
                 crop_ratio: Optional[Sequence[float]] = (0.9, 1.0),
                 windows_per_video: int = 1,
                 split: Optional[Mapping[str, Any]] = None,
                 sample_ratio: float = 1.0,
                 seed: int = 42,
                 block_list: Union[str, Sequence[str], None] = None,
                 drop_labels: Sequence[str] = (),
                 bad_segments: str = 'error',
                 class_agnostic: bool = False,
                 fps: Optional[float] = None,
                 offset_frames: float = 0,
                 data_root: str = '',
                 data_prefix: Mapping[str, str] = dict(video='videos'),
                 filename_tmpl: str = '{}',
                 suffixes: Optional[Sequence[str]] = None,
                 max_broken_share: float = 0.05,
                 window_rule: str = 'covering',
                 frame_rule: str = 'exact',
                 filter_cfg: Optional[dict] = None,
                 metainfo: Optional[dict] = None,
                 test_mode: bool = False,
                 lazy_init: bool = False,
                 **kwargs: Any) -> None:
        windows = windows or ('sliding' if test_mode else 'random')
        _choice('windows', windows, MODES)
        _choice('window_rule', window_rule, WINDOW_RULES)
        _choice('frame_rule', frame_rule, FRAME_RULES)
        if windows != 'resize' and snippet_stride % frames_per_step:
            raise ValueError(
                f'frames_per_step={frames_per_step} must divide '
                f'snippet_stride={snippet_stride}')
        for key in data_prefix:
            _choice('key of data_prefix', key, ('video', 'feature'))
        if len(data_prefix) > 1:
            raise ValueError(f'data_prefix={dict(data_prefix)} must name one '
                             "folder, of 'video' or of 'feature'")
        if data_root:
            require_path(data_root, 'data_root')
        #: What every sample carries besides its own record.
        self.geometry = dict(
            windows=windows,
            window_size=int(window_size),
            snippet_stride=int(snippet_stride),
            frames_per_step=int(frames_per_step),
            offset_frames=offset_frames,
            action_thresh=action_thresh,
            crop_ratio=crop_ratio,
            window_rule=window_rule)
        self.subset = subset
        self.overlap_ratio = overlap_ratio
        self.windows_per_video = windows_per_video
        self.split = split
        self.sample_ratio = sample_ratio
        self.seed = seed
        self.block_list = block_list or ()
        self.drop_labels = tuple(drop_labels)
        self.bad_segments = bad_segments
        self.class_agnostic = class_agnostic
        self.fps = fps
        self.filename_tmpl = filename_tmpl
        self.suffixes = tuple(suffixes or (
            FEATURE_SUFFIXES if 'feature' in data_prefix else VIDEO_SUFFIXES))
        self.max_broken_share = max_broken_share
        self.frame_rule = frame_rule
        self.video_names: List[str] = []
        self.filenames: List[str] = []
        self._epoch = torch.full((1, ), -1, dtype=torch.int64).share_memory_()
        self.broken = BrokenVideos([], max_broken_share, test_mode)
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=dict(data_prefix),
            filter_cfg=filter_cfg,
            test_mode=test_mode,
            lazy_init=True,
            **kwargs)
        self._load_classes(classes)
        if not lazy_init:
            self.full_init()

    def _load_classes(self, classes: Union[str, Sequence[str], None]) -> None:
        if classes is None:
            classes = self._metainfo.get('classes')
        database = {} if classes is not None else load_database(self.ann_file)
        names = load_classes(classes, self.data_root, database,
                             self.drop_labels)
        self._label_names = names
        self._metainfo['classes'] = (
            ('action', ) if self.class_agnostic else tuple(names))

    # Annotations to samples ------------------------------------------------

    def load_data_list(self) -> List[dict]:
        """Samples of the chosen videos, in the order of the annotation file.

        Raises:
            FileNotFoundError: For a path that does not exist.
            ValueError: For an unknown subset or label, a wrong segment, or
                if no sample is left.
            RuntimeError: If too many videos have no file.
        """
        database = select_subset(
            load_database(self.ann_file), self.subset, self.ann_file)
        names = self._without_blocked(database)
        if self.split is not None:
            names = split_names(names, **self.split)
        if self.sample_ratio != 1:
            chosen = sample_indices(len(names), self.sample_ratio, self.seed)
            names = [names[index] for index in sorted(chosen)]
        self.video_names = names
        self.broken = BrokenVideos(names, self.max_broken_share,
                                   self.test_mode)
        self.filenames = self._find_files()
        reader = ActionReader(self._label_names, self.drop_labels,
                              self.bad_segments, self.ann_file)
        samples: List[dict] = []
        for index, name in enumerate(self._progress(names, database)):
            record = self._record(index, database[name], reader)
            samples.extend(self._windows_of(record))
        reader.report()
        if not samples:
            raise ValueError(
                f'no sample is left of the {len(names)} videos of '
                f'subset={self.subset!r} in {self.ann_file!r}: none has an '
                f'action of classes={self._label_names} that a window of '
                f'window_size={self.geometry["window_size"]} holds')
        return samples

    def _without_blocked(self, database: Mapping[str, dict]) -> List[str]:
        """Names of the videos that ``block_list`` leaves."""
        blocked = self.block_list
        if isinstance(blocked, str):
            blocked = read_names(blocked, self.data_root, 'block_list')
        names = [name for name in database if name not in set(blocked)]
        if len(names) < len(database):
            print_log(
                f'block_list leaves out {len(database) - len(names)} of '
                f'{len(database)} videos',
                logger='current')
        if not names:
            raise ValueError(f'block_list={self.block_list!r} leaves none of '
                             f'the {len(database)} videos of '
                             f'subset={self.subset!r}')
        return names

    def _progress(self, names: List[str], database: Mapping[str, dict]):
        missing = sum('fps' not in database[name] and not (
            {'frame', 'duration'} <= set(database[name])) for name in names)
        slow = missing > 50 and self.fps is None and self.data_prefix
        return track_iter_progress(names) if slow else names

    def _find_files(self) -> List[str]:
        """Path of every video's file, found or not."""
        if not self.data_prefix:
            return [''] * len(self.video_names)
        (key, folder), = self.data_prefix.items()
        require_path(folder, f"data_prefix['{key}']")
        stems = [self.filename_tmpl.format(name) for name in self.video_names]
        found = [find_media(folder, stem, self.suffixes) for stem in stems]
        files = [path or osp.join(folder, stem + self.suffixes[0])
                 for path, stem in zip(found, stems)]
        missing = [index for index, path in enumerate(found) if path is None]
        if missing:
            first = files[missing[0]]
            hint = nearest(osp.basename(first), sorted(listdir(folder)))
            self.broken.note_missing(
                missing, f'have no file with a suffix of {self.suffixes}; the '
                f"first is {first!r} (data_prefix['{key}']={folder!r}, "
                f'filename_tmpl={self.filename_tmpl!r}{hint})')
        return files

    def _record(self, index: int, entry: Mapping[str, Any],
                reader: ActionReader) -> dict:
        """What all windows of a video share."""
        name = self.video_names[index]
        duration, fps, frames = read_timing(
            f'video {name!r} of {self.ann_file!r}', entry, self.fps,
            lambda: self._probe(index, entry))
        segments, labels = reader.read(name, entry.get('annotations', ()),
                                       duration)
        if self.class_agnostic:
            labels = np.zeros_like(labels)
        share = (segments[:, 1] - segments[:, 0]) / duration
        shown = share > (self.filter_cfg or {}).get('min_action_share', 0.)
        if self.frame_rule == 'truncate':
            actions = np.trunc(segments / duration * frames)
        else:
            actions = segments * fps
        actions, action_labels = unique_actions(actions[shown], labels[shown])
        return dict(
            video_name=name,
            video_index=index,
            filename=self.filenames[index],
            duration=duration,
            fps=fps,
            total_frames=frames,
            video_segments=segments,
            video_labels=labels,
            action_frames=actions,
            action_labels=action_labels)

    def _probe(self, index: int,
               entry: Mapping[str, Any]) -> Tuple[int, float]:
        """Frames and rate of a video file, for what its annotation lacks."""
        name, filename = self.video_names[index], self.filenames[index]
        if 'video' not in self.data_prefix:
            raise ValueError(
                f"video {name!r} of {self.ann_file!r} needs 'duration', and "
                "'frame' or 'fps' (or the argument fps), as there is no video "
                'file to read them from')
        try:
            return probe_video(filename)
        except UnreadableVideoError as error:
            # Black at any rate, and long enough for what it should show.
            self.broken.note(index, error)
            ends = [action['segment'][1] for action in
                    entry.get('annotations', ())]
            return round(25 * entry.get('duration', max(ends, default=1))), 25.

    def _windows_of(self, record: dict) -> List[dict]:
        """Samples of one video."""
        filter_empty = (self.filter_cfg or {}).get('filter_empty',
                                                   not self.test_mode)
        if filter_empty and not len(record['action_frames']):
            return []
        if self.geometry['windows'] == 'random':
            return [record] * self.windows_per_video
        if self.geometry['windows'] == 'resize':
            return [record]
        stride = self.geometry['snippet_stride']
        samples = []
        for start, steps in sliding_windows(
                -(-record['total_frames'] // stride),
                self.geometry['window_size'], self.overlap_ratio,
                self.geometry['window_rule']):
            sample = dict(record, window_start_step=start, window_steps=steps)
            meta = dict(self.geometry, window_start_frame=start * stride)
            kept, _ = window_actions(record['action_frames'], meta, steps)
            if len(kept) or not filter_empty:
                samples.append(sample)
        return samples

    # Access -----------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Tie all random draws of a sample to (seed, epoch, index).

        After the first call random windows and random transforms no longer
        depend on the order of access, the number of workers or an earlier
        interruption. It reaches workers that run already. Without it they
        follow the generators of Python and numpy in each worker.
        """
        self._epoch.fill_(epoch)

    def get_data_info(self, idx: int) -> dict:
        """A fresh copy of a sample's record, with the window's geometry."""
        info = super().get_data_info(idx)
        return dict(
            info,
            **self.geometry,
            modality='RGB',
            start_index=0,
            broken=self.broken[info['video_index']])

    def get_cat_ids(self, idx: int) -> List[int]:
        """Labels of the video of a sample."""
        return self.get_data_info(idx)['video_labels'].tolist()

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a sample.

        Returns:
            The packed sample, or None for an unreadable training video.

        Raises:
            RuntimeError: If too many videos are unreadable.
        """
        epoch = int(self._epoch)
        if epoch < 0 or self.test_mode:
            return self._prepare(idx)
        seed = (self.seed * 1000003 + epoch) * 1000003 + idx
        with _seeded(seed % 2**32):
            return self._prepare(idx)

    def _prepare(self, idx: int) -> Any:
        info = self.get_data_info(idx)
        if not info['broken']:
            try:
                return self.pipeline(info)
            except read_errors() as error:
                self.broken.note(info['video_index'], error)
        if not self.test_mode:
            return None
        info = self.get_data_info(idx)
        return self.pipeline(dict(info, black_shape=self._black_shape()))

    def _black_shape(self) -> Tuple[int, ...]:
        """Frame size, or feature width, of the first readable video."""
        for index in range(len(self)):
            info = super().get_data_info(index)
            if self.broken[info['video_index']]:
                continue
            try:
                if 'feature' in self.data_prefix:
                    return np.load(info['filename'], mmap_mode='r').shape
                return open_video(info['filename'])[0].shape
            except (UnreadableVideoError, ValueError, OSError):
                continue
        return (224, 224)
