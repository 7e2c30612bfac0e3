"""The rate of a model's time grid: stored with it, followed by its data.

``dataset_meta`` of a checkpoint has ``sample_fps``, the grid steps per second.
It is None for a grid that counts the frames of each video; then ``video_fps``
has the frame rates of the training videos.
"""
import logging
from collections import OrderedDict
from typing import Any, Dict, Mapping, MutableMapping, Optional, Sequence, Type

from mmblockdrop.registry import DATASETS

import numpy as np
from mmengine.logging import print_log

#: Share by which frame rates may differ on a grid that counts frames.
TOLERANCE = 0.05


class VideoRates(OrderedDict):
    """Frame rates of videos: ``median``, ``min`` and ``max``.

    Any two are equal: mmengine's ``ConcatDataset`` asks that of the meta
    information of its parts, and parts of other rates may be joined. Pickled
    it is an ``OrderedDict``.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VideoRates)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: Dict[int, Any]) -> 'VideoRates':
        return VideoRates(self)

    def __reduce__(self) -> Any:
        return OrderedDict, (), None, None, iter(self.items())

    @classmethod
    def of(cls, rates: Sequence[float]) -> 'VideoRates':
        """Summary of frame rates.

        Args:
            rates: Frames per second of each video, one at least.
        """
        values = dict(
            median=np.median(rates), min=np.min(rates), max=np.max(rates))
        return cls((name, float(value)) for name, value in values.items())

    @property
    def is_mixed(self) -> bool:
        """Whether grid steps that count frames differ in length."""
        return self['max'] > (1 + TOLERANCE) * self['min']

    def differing(self, rates: Sequence[float]) -> np.ndarray:
        """Which of some rates lie outside the range by more than 5 %.

        Args:
            rates: Frames per second, N values.

        Returns:
            Mask [N].
        """
        rates = np.asarray(rates, np.float64)
        return ((rates < (1 - TOLERANCE) * self['min'])
                | (rates > (1 + TOLERANCE) * self['max']))

    def __str__(self) -> str:
        if not self.is_mixed:
            return f'{self["median"]:.4g}'
        return (f'{self["min"]:.4g} to {self["max"]:.4g} (median '
                f'{self["median"]:.4g})')


def follow_grid(dataset: Optional[MutableMapping[str, Any]],
                meta: Optional[Mapping[str, Any]]) -> None:
    """Let a data set lay the grid that a model was trained on.

    Args:
        dataset: Config of a data set, of a wrapper of one or of several, or
            None; changed in place. With a grid in seconds it gets the model's
            ``sample_fps``; else ``metainfo.video_fps``, with which the data
            set compares the rates of its videos. Data sets of other classes
            stay as they are.
        meta: ``dataset_meta`` of the model's checkpoint; one of before 0.2
            says nothing.

    Raises:
        ValueError: ``meta`` has a rate that is none.
    """
    if dataset is None or not meta or 'sample_fps' not in meta:
        return
    rates = _checked_rates(meta)
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    for part in inner:
        if isinstance(part, MutableMapping):
            follow_grid(part, meta)
    if not getattr(_class_of(dataset), 'has_sample_fps', False):
        return
    rate, given = meta['sample_fps'], dataset.get('sample_fps')
    if rate is None:
        if given is not None:
            _warn('the model was trained on a grid that counts frames'
                  f'{f" of videos with {rates} per second" if rates else ""}; '
                  f'this data set has sample_fps={given} steps per second')
        elif rates:
            dataset['metainfo'] = dict(
                dataset.get('metainfo') or {}, video_fps=dict(rates))
    elif given is None or abs(given / rate - 1) > 1e-6:
        _warn(f'the model was trained with sample_fps={rate:.6g} grid steps '
              f'per second; it replaces sample_fps={given} and snippet_stride='
              f'{dataset.get("snippet_stride")} of {dataset.get("type")}')
        dataset.update(sample_fps=rate, snippet_stride=None)


def _class_of(cfg: Mapping[str, Any]) -> Optional[Type[Any]]:
    """What a config builds."""
    kind = cfg.get('type')
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def _checked_rates(meta: Mapping[str, Any]) -> Optional[VideoRates]:
    """Frame rates of a model's training videos, where they are known."""
    rates = meta.get('video_fps')
    numbers = {'sample_fps': meta['sample_fps']}
    if rates is not None:
        numbers.update({
            f'video_fps.{name}': dict(rates).get(name, 'absent')
            for name in ('median', 'min', 'max')
        })
    for key, value in numbers.items():
        if key == 'sample_fps' and value is None:
            continue
        if not isinstance(value, (int, float)) or not 0 < value < np.inf:
            raise ValueError(f'dataset_meta.{key}={value!r:.60} of the '
                             'checkpoint: expected a positive number')
    return VideoRates(rates) if rates else None


def _warn(message: str) -> None:
    """Log a warning."""
    print_log(message, logger='current', level=logging.WARNING)
