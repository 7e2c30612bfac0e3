"""Classes of whole videos from a file, for proposals without class."""
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from mmblockdrop.utils.io import read_array, read_json
from mmblockdrop.utils.messages import (did_you_mean, find_video, listed,
                                        require_choice, require_finite,
                                        require_whole)

import numpy as np

ACTIVATIONS = (None, 'softmax')
COMBINE = ('product', 'sqrt')
#: Columns, from zero, of the 20 classes of THUMOS14's detection task among
#: the 101 classes of UCF101 that UntrimmedNet scores.
THUMOS14_COLUMNS = dict(
    BaseballPitch=6,
    BasketballDunk=8,
    Billiards=11,
    CleanAndJerk=20,
    CliffDiving=21,
    CricketBowling=22,
    CricketShot=23,
    Diving=25,
    FrisbeeCatch=30,
    GolfSwing=32,
    HammerThrow=35,
    HighJump=39,
    JavelinThrow=44,
    LongJump=50,
    PoleVault=67,
    Shotput=78,
    SoccerPenalty=84,
    TennisSwing=91,
    ThrowDiscus=92,
    VolleyballSpiking=96)


class ExternalClassifier:
    """Scores of whole videos, by which proposals get their classes.

    A proposal of score ``p`` in a video whose ``k`` best classes have the
    scores ``c_1 ... c_k`` becomes ``k`` detections of score ``p * c_i``, as
    is customary for BMN and its kind on ActivityNet (the CUHK classifier)
    and THUMOS14 (UntrimmedNet).

    The file is JSON, the videos under ``results`` or at the top, each with

    - a list of scores, in the order of the names under ``class`` or
      ``classes`` in the file, or of the argument ``classes``;
    - a list of ``{label, score}``, ActivityNet's classification format;
    - or a dict of class to score;

    or ``.npy``, an array ``[videos, 101]`` as of UntrimmedNet, whose row is
    the number at the end of the video's name (``video_test_0000004`` is
    row 4, counted from one).

    Args:
        path: The file.
        topk: Classes per video. Defaults to 2.
        classes: Names of the scores, or name to column, where the file does
            not tell. Defaults to those of THUMOS14 for ``.npy``.
        activation: 'softmax' where the file holds logits. Defaults to None,
            scores as they are.
        combine: 'product', or 'sqrt' for the square root of the product.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file has another format, or an argument is unknown.
    """

    def __init__(self,
                 path: str,
                 topk: int = 2,
                 classes: Any = None,
                 activation: Optional[str] = None,
                 combine: str = 'product') -> None:
        self.topk, self.activation, self.combine = topk, activation, combine
        self.source = f'external_classifier.path={str(path)!r}'
        require_choice('external_classifier.activation', activation,
                       ACTIVATIONS)
        require_choice('external_classifier.combine', combine, COMBINE)
        require_whole('external_classifier.topk', topk, 1)
        self.videos: Any
        if str(path).endswith('.npy'):
            self._read_array(path, classes)
        else:
            self._read_json(path, classes)

    def __deepcopy__(self, memo: dict) -> 'ExternalClassifier':
        """Copies of a metric share what has been read."""
        return self

    def scores_of(self, video: str,
                  classes: Optional[Sequence[str]] = None
                  ) -> Tuple[List[str], np.ndarray]:
        """The best classes of a video.

        Args:
            video: Its name, with or without ActivityNet's ``v_``.
            classes: Classes to choose from, those of the data set. Defaults to
                all of the file.

        Returns:
            Names and scores ``[k]`` of at most ``topk`` classes, the best
            first.

        Raises:
            ValueError: The file does not know the video or a class, names a
                class twice, or has a score that is not a number, not finite,
                or negative without an activation.
        """
        names, scores = self._row(video)
        if scores.shape != (len(names), ):
            raise ValueError(
                f'{self.source} gives {scores.size} scores for video '
                f'{video!r}, expected one for each of {len(names)} classes')
        valid = np.isfinite(scores)
        if self.activation is None:
            valid &= scores >= 0
        if not valid.all():
            bad = int(np.flatnonzero(~valid)[0])
            raise ValueError(
                f'{self.source}: the score of {names[bad]!r} for video '
                f'{video!r} is {scores[bad]:g}, expected a finite number of '
                "zero or more; logits need activation='softmax'")
        if self.activation == 'softmax':
            scores = np.exp(scores - scores.max())
            scores = scores / scores.sum()
        if classes is not None:
            self.check_classes(classes)
            known = [i for i, name in enumerate(names) if name in classes]
            names, scores = [names[i] for i in known], scores[known]
        order = np.argsort(-scores, kind='stable')[:self.topk]
        return [names[i] for i in order], scores[order]

    def check_classes(self, classes: Sequence[str]) -> None:
        """Reject a data set with classes that can never be found.

        Args:
            classes: Names of the data set's classes.

        Raises:
            ValueError: The file names its classes and lacks some.
        """
        missing = [c for c in classes if c not in self.classes]
        if self.classes and missing:
            raise ValueError(
                f'{self.source} has no scores for {len(missing)} of the '
                f'{len(classes)} classes: '
                f'{missing[0]!r} is not among its {listed(self.classes)}'
                f'{did_you_mean(missing[0], self.classes)}')

    def combined(self, proposals: np.ndarray, score: float) -> np.ndarray:
        """Scores of detections.

        Args:
            proposals: Scores of proposals, ``[N]``.
            score: That of the class.

        Returns:
            ``[N]``.
        """
        product = proposals * np.float32(score)
        return np.sqrt(product) if self.combine == 'sqrt' else product

    # ------------------------------------------------------------ the file
    def _read_json(self, path: str, classes: Any) -> None:
        content = read_json(path, 'external_classifier.path')
        videos = content.get('results', content) if isinstance(
            content, Mapping) else None
        if not isinstance(videos, Mapping) or not videos:
            raise ValueError(
                f'{self.source} holds no scores by video, neither under '
                "'results' nor at the top")
        self.videos = videos
        if classes is None:
            classes = content.get('class', content.get('classes'))
        first = next(iter(videos.values()))
        if classes is None and _is_scores(first):
            raise ValueError(
                f"{self.source} has neither 'class' nor 'classes' to name the "
                f'{np.size(first)} scores of a video: set '
                'external_classifier.classes')
        self.classes = [str(c) for c in classes or
                        _labels(videos, self.source)]

    def _read_array(self, path: str, classes: Any) -> None:
        table = read_array(path, 'external_classifier.path')
        columns = THUMOS14_COLUMNS if classes is None else classes
        if not isinstance(columns, Mapping):
            columns = {name: i for i, name in enumerate(columns)}
        if table.ndim != 2 or max(columns.values()) >= table.shape[1]:
            raise ValueError(
                f'{self.source} has shape {table.shape}, expected [videos, at '
                f'least {max(columns.values()) + 1} classes]')
        self.classes = list(columns)
        self.videos = table[:, list(columns.values())]

    def _row(self, video: str) -> Tuple[List[str], np.ndarray]:
        if isinstance(self.videos, np.ndarray):
            number = re.search(r'(\d+)$', video)
            row = int(number.group(1)) - 1 if number else -1
            if not 0 <= row < len(self.videos):
                raise ValueError(
                    f'{self.source} has rows for videos 1 to '
                    f'{len(self.videos)}, none for {video!r}')
            return self.classes, self.videos[row].astype(np.float32)
        entry = self.videos[find_video(
            self.source, video, self.videos)]
        if _is_scores(entry):
            return self.classes, np.asarray(
                _numbers(entry, f'{self.source}: scores of video {video!r}'),
                np.float32).reshape(-1)
        pairs = _pairs(entry, f'{self.source}: video {video!r}')
        return list(pairs), np.array(list(pairs.values()), np.float32)


def _is_scores(entry: Any) -> bool:
    """Whether an entry is a list of numbers, or a list of one such list."""
    return isinstance(entry, list) and not any(
        isinstance(row, Mapping) for row in entry)


def _numbers(entry: List[Any], what: str) -> List[Any]:
    """Check that a list, or the one list in it, holds numbers."""
    inside = entry[0] if len(entry) == 1 and isinstance(
        entry[0], list) else entry
    for value in inside:
        require_finite(value, what)
    return inside


def _pairs(entry: Any, what: str) -> Dict[str, float]:
    """Class to score, as one of the two formats has them."""
    if isinstance(entry, Mapping):
        pairs = list(entry.items())
    else:
        pairs = [(row.get('label'), row.get('score')) for row in entry]
    found: Dict[str, float] = {}
    for name, score in pairs:
        if str(name) in found:
            raise ValueError(f'{what} has the class {name!r} twice')
        found[str(name)] = require_finite(score, f'{what} has {name!r}')
    return found


def _labels(videos: Mapping[str, Any], source: str) -> List[str]:
    """Classes that any video names, in order."""
    return list(
        dict.fromkeys(name for video, entry in videos.items()
                      for name in _pairs(entry, f'{source}: video {video!r}')))
