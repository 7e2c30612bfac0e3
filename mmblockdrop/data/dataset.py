"""Windows over untrimmed videos."""
import contextlib
import random
from typing import (Any, Dict, Iterator, List, Mapping, Optional, Sequence,
                    Tuple, Union)

from mmblockdrop.registry import DATASETS, replaced_by
from mmblockdrop.structures.grid_rate import VideoRates
from mmblockdrop.utils.messages import require_choice, require_folder
from mmblockdrop.utils.video import (VIDEO_SUFFIXES, UnreadableVideoError,
                                     Video, read_errors)

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from .annotations import (ActionReader, choose_videos, load_classes,
                          load_database, select_subset, warn)
from .records import FEATURE_SUFFIXES, BrokenVideos, VideoRecords, VideoSources
from .windows import MODES, sliding_windows, window_actions

#: What the mappings among the arguments of a data set may hold.
KEYS = dict(
    filter_cfg=('filter_empty', 'min_action_share'),
    split=('part', 'ratio', 'seed'),
    data_prefix=('video', 'feature'))


class EpochDraws:
    """Ties the draws of a sample to (seed, epoch, index).

    The epoch lies in shared memory and so reaches workers that run already.

    Args:
        seed: Seed of all epochs.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = torch.full((1, ), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; before the first, draws are left as they are."""
        self._epoch.fill_(epoch)

    @contextlib.contextmanager
    def of(self, index: int) -> Iterator[None]:
        """Draws of ``random`` and ``numpy`` of a sample, then as before.

        Args:
            index: The sample.
        """
        epoch = int(self._epoch)
        if epoch < 0:
            yield
            return
        states = random.getstate(), np.random.get_state()
        seed = ((self.seed * 1000003 + epoch) * 1000003 + index) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _check_sample_fps(sample_fps: float, **others: Any) -> None:
    """Reject a rate that is none, or arguments that contradict it."""
    if isinstance(sample_fps, bool) or not isinstance(
            sample_fps, (int, float)) or not 0 < sample_fps < float('inf'):
        raise ValueError(f'sample_fps={sample_fps!r}: expected grid steps per '
                         'second, a positive number')
    for key, value in others.items():
        if value is not None:
            raise ValueError(
                f'{key}={value!r} beside sample_fps={sample_fps}: a grid in '
                f'seconds has no such setting; remove it or set {key}=None')


@DATASETS.register_module()
@replaced_by('mmblockdrop.PublishedVideoDataset', 'window_rule', 'frame_rule')
class UntrimmedVideoDataset(BaseDataset):
    """Windows over untrimmed videos, or over features of them.

    A sample is a window of ``window_size`` grid steps of ``snippet_stride``
    frames each, of which ``frames_per_step`` are decoded. The dataset says
    where the windows are and which actions the video has; the pipeline opens
    the video, cuts the window (``SampleWindow``) and packs it
    (``PackTADInputs``).

    With ``sample_fps`` the grid counts seconds and not frames: step k of a
    video is at k / ``sample_fps`` seconds, whatever its frame rate. Frames,
    chosen by their time stamps, repeat or are skipped. In such a sample
    ``fps``, ``total_frames`` and ``window_start_frame`` count the frames on
    the grid, ``frames_per_step`` in each step.

    ``metainfo`` has ``classes``, ``sample_fps``, and without it ``video_fps``:
    median, least and largest frame rate of the videos. mmengine stores it as
    ``dataset_meta`` in checkpoints. A data set that is given a model's
    ``metainfo=dict(video_fps=...)`` warns of videos of other rates.

    An unreadable video is counted with a warning. In training another sample
    is drawn instead; in test mode its windows are black and have
    ``valid_steps=0``, so that its actions count as missed. Beyond
    ``max_broken_share`` of the videos the run stops.

    Args:
        ann_file: ActivityNet-style JSON, times in seconds.
        subset: Exact names of the subsets to use. None takes all.
        classes: Names, or a file of names (text or JSON) relative to
            ``data_root``. None takes the labels of ``ann_file`` in
            alphabetical order.
        window_size: Grid steps of a window.
        snippet_stride: Frames per grid step. Defaults to 4, or to None with
            ``sample_fps``.
        sample_fps: Grid steps per second. Of features, their rate. Defaults
            to None, a grid that counts the frames of each video.
        frames_per_step: Frames decoded per grid step, without ``sample_fps`` a
            divisor of ``snippet_stride`` (``scale_factor`` of the published
            code).
        windows: ``random``: one window per video, drawn around an action.
            ``sliding``: windows that overlap. ``resize``: the whole video on
            ``window_size`` grid steps. Defaults to ``sliding`` in test mode,
            else ``random``.
        overlap_ratio: Overlap of sliding windows.
        action_thresh: Share of an action that must lie in a window to be its
            ground truth.
        crop_ratio: Length of a random window of a video that is not longer
            than ``window_size``.
        windows_per_video: Random windows of each video in an epoch.
        split: ``dict(part='train'|'val', ratio=0.15, seed=0)`` takes one part
            of a fixed split of the videos.
        sample_ratio: Share of the videos to use, drawn by ``seed``.
        seed: Seed of ``sample_ratio`` and of the random windows.
        block_list: Videos to leave out: names, or a file of names (text or
            JSON) relative to ``data_root``.
        drop_labels: Labels that are background. Any other label outside
            ``classes`` is an error.
        bad_segments: ``error`` or ``drop``, for segments that are reversed or
            outside the video.
        class_agnostic: Whether all actions are of one class.
        fps: Frames per second that overrides the annotation's, for features of
            another rate than the video.
        offset_frames: Frame of the first feature.
        data_root: Folder of relative paths.
        data_prefix: ``dict(video=folder)`` or ``dict(feature=folder)``, or
            ``dict()`` for annotations alone.
        filename_tmpl: File name of a video, suffix apart.
        suffixes: File suffixes to look for.
        max_broken_share: Share of videos that may be unreadable.
        filter_cfg: ``filter_empty`` (skip videos, and windows, without
            actions; defaults to True unless in test mode) and
            ``min_action_share`` (actions that take no more of the video are no
            ground truth; defaults to 0).
        **kwargs: ``pipeline``, ``test_mode``, ``metainfo``, ``indices``,
            ``lazy_init``, ``serialize_data`` and ``max_refetch`` of
            :class:`mmengine.dataset.BaseDataset`.
    """

    #: See :func:`mmblockdrop.structures.grid_rate.follow_grid`.
    has_sample_fps = True
    #: Where sliding windows are, and which actions one shows.
    sliding_windows = staticmethod(sliding_windows)
    window_actions = staticmethod(window_actions)

    def __init__(self,
                 ann_file: str,
                 subset: Union[str, Sequence[str], None] = None,
                 classes: Union[str, Sequence[str], None] = None,
                 window_size: int = 256,
                 snippet_stride: Optional[int] = None,
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
                 filter_cfg: Optional[dict] = None,
                 metainfo: Optional[dict] = None,
                 test_mode: bool = False,
                 lazy_init: bool = False,
                 sample_fps: Optional[float] = None,
                 **kwargs: Any) -> None:
        windows = windows or ('sliding' if test_mode else 'random')
        require_choice('windows', windows, MODES)
        if sample_fps is None:
            snippet_stride = 4 if snippet_stride is None else snippet_stride
        else:
            _check_sample_fps(
                sample_fps,
                snippet_stride=snippet_stride,
                windows='resize' if windows == 'resize' else None,
                fps=fps,
                offset_frames=offset_frames or None)
            # Frames of the grid, not of the video.
            snippet_stride = frames_per_step
        if windows != 'resize' and snippet_stride % frames_per_step:
            raise ValueError(
                f'frames_per_step={frames_per_step} must divide '
                f'snippet_stride={snippet_stride}')
        for name, given in (('filter_cfg', filter_cfg), ('split', split),
                            ('data_prefix', data_prefix)):
            for key in given or ():
                require_choice(f'key of {name}', key, KEYS[name])
        if len(data_prefix) > 1:
            raise ValueError(f'data_prefix={dict(data_prefix)} must name one '
                             "folder, of 'video' or of 'feature'")
        if data_root:
            require_folder(data_root, 'data_root')
        #: What every sample carries besides its own record.
        self.geometry = dict(
            windows=windows,
            window_size=int(window_size),
            snippet_stride=int(snippet_stride),
            frames_per_step=int(frames_per_step),
            sample_fps=None if sample_fps is None else float(sample_fps),
            offset_frames=offset_frames,
            action_thresh=action_thresh,
            crop_ratio=crop_ratio)
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
        self.video_names: List[str] = []
        self.filenames: List[str] = []
        self._draws = EpochDraws(seed)
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
        self._metainfo['sample_fps'] = self.geometry['sample_fps']
        if not lazy_init:
            self.full_init()

    def _load_classes(self, classes: Union[str, Sequence[str], None]) -> None:
        """Read the names of the classes, or take those of the annotations."""
        if classes is None:
            classes = self._metainfo.get('classes')
        database = {} if classes is not None else load_database(self.ann_file)
        try:
            names = load_classes(classes, self.data_root, database,
                                 self.drop_labels)
        except ValueError as error:
            if classes is not None:
                raise
            raise ValueError(f'ann_file={self.ann_file!r}: {error}') from error
        self._label_names = names
        self._metainfo['classes'] = (
            ('action', ) if self.class_agnostic else tuple(names))

    # Annotations to samples ------------------------------------------------

    def load_data_list(self) -> List[dict]:
        """Samples of the chosen videos, in the order of the annotation file.

        Raises:
            FileNotFoundError: A path does not exist.
            ValueError: A subset or label is unknown, a segment is wrong, or
                no sample remains.
            RuntimeError: Too many videos have no file.
        """
        database = select_subset(
            load_database(self.ann_file), self.subset, self.ann_file)
        names = self.video_names = choose_videos(
            database, self.subset, self.block_list, self.data_root, self.split,
            self.sample_ratio, self.seed)
        self.broken = BrokenVideos(names, self.max_broken_share,
                                   self.test_mode)
        sources = VideoSources(names, self.data_prefix, self.filename_tmpl,
                               self.suffixes, self.broken, self.ann_file)
        self.filenames = sources.paths
        reader = ActionReader(self._label_names, self.drop_labels,
                              self.bad_segments, self.ann_file)
        rules = self.filter_cfg or {}
        records = VideoRecords(database, sources, reader, self.fps,
                               self.action_frames, self.class_agnostic,
                               rules.get('min_action_share', 0.),
                               self._grid_fps())
        skip_empty = rules.get('filter_empty', not self.test_mode)
        samples: List[dict] = []
        rates: Dict[str, float] = {}
        for record in records:
            if not self.broken[record['video_index']]:
                rates[record['video_name']] = record['fps']
            if len(record['action_frames']) or not skip_empty:
                samples += self._windows(record, skip_empty)
        reader.report()
        if not samples:
            raise ValueError(
                f'no sample remains of the {len(names)} videos of '
                f'subset={self.subset!r} in {self.ann_file!r}: none has an '
                f'action of classes={self._label_names} that a window of '
                f'window_size={self.geometry["window_size"]} holds')
        if rates and self.geometry['sample_fps'] is None and (
                self.geometry['windows'] != 'resize'):
            self._compare_rates(rates)
        return samples

    def _grid_fps(self) -> Optional[float]:
        """Frames per second on a grid in seconds."""
        rate = self.geometry['sample_fps']
        return None if rate is None else rate * (
            self.geometry['frames_per_step'])

    def _compare_rates(self, rates: Dict[str, float]) -> None:
        """Warn where steps last longer or shorter than the model's own."""
        stride = self.geometry['snippet_stride']
        trained = self._metainfo.get('video_fps')
        if trained is not None:
            trained = VideoRates(trained)
            names = [name for name, other in zip(
                rates, trained.differing(list(rates.values()))) if other]
            if names:
                warn(f'{len(names)} of {len(rates)} videos have another frame '
                     'rate than those that the model was trained on: '
                     f'{names[0]!r} has {rates[names[0]]:.4g} frames per '
                     f'second, those had {trained}. A grid step counts '
                     f'{stride} frames, so what it sees is faster or slower '
                     'and detections suffer; train with sample_fps')
            return
        found = self._metainfo['video_fps'] = VideoRates.of(
            list(rates.values()))
        if found.is_mixed and not self.test_mode:
            warn(f'the videos have {found} frames per second, and a grid step '
                 f'counts {stride} of them: steps last from '
                 f'{stride / found["max"]:.3f} to {stride / found["min"]:.3f} '
                 's. With sample_fps, grid steps per second, all last the '
                 'same')

    def _windows(self, record: dict, skip_empty: bool) -> List[dict]:
        """Samples of one video; windows without action if not skipped."""
        if self.geometry['windows'] == 'random':
            return [record] * self.windows_per_video
        if self.geometry['windows'] == 'resize':
            return [record]
        stride = self.geometry['snippet_stride']
        samples = []
        for start, steps in self.sliding_windows(
                -(-record['total_frames'] // stride),
                self.geometry['window_size'], self.overlap_ratio):
            meta = dict(self.geometry, window_start_frame=start * stride)
            kept, _ = self.window_actions(record['action_frames'], meta, steps)
            if len(kept) or not skip_empty:
                samples.append(
                    dict(record, window_start_step=start, window_steps=steps))
        return samples

    def action_frames(self, segments: np.ndarray, duration: float, fps: float,
                      total_frames: int) -> np.ndarray:
        """Boundaries of actions in frames of the video.

        Args:
            segments: [N, 2] in seconds.
            duration: Length of the video in seconds.
            fps: Frames per second.
            total_frames: Frames of the video.

        Returns:
            [N, 2], not rounded.
        """
        return segments * fps

    # Access -----------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Tie all random draws of a sample to (seed, epoch, index).

        After the first call random windows and random transforms no longer
        depend on the order of access, the number of workers or an earlier
        interruption. It reaches workers that run already. Without it they
        follow the generators of Python and numpy in each worker.

        Args:
            epoch: Number of the epoch.
        """
        self._draws.set_epoch(epoch)

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
            RuntimeError: Too many videos are unreadable.
        """
        if self.test_mode:
            return self._prepare(idx)
        with self._draws.of(idx):
            return self._prepare(idx)

    def _prepare(self, idx: int) -> Any:
        """Run the pipeline; unreadable videos are counted."""
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
                return Video(info['filename'])[0].shape
            except (UnreadableVideoError, ValueError, OSError):
                continue
        return (224, 224)
