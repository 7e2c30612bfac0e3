"""Which videos of an annotation file a data set takes."""
import random
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from mmblockdrop.utils.messages import did_you_mean, require_choice

from mmengine.logging import print_log

from .annotations import read_names
from .windows import sample_indices

#: What the mappings among the arguments of a data set may hold.
KEYS = dict(
    filter_cfg=('filter_empty', 'min_action_share'),
    split=('part', 'ratio', 'seed'),
    data_prefix=('video', 'feature'))


def choose_videos(database: Mapping[str, dict], subset: Any,
                  block_list: Union[str, Sequence[str]], data_root: str,
                  split: Optional[Mapping[str, Any]], sample_ratio: float,
                  seed: int) -> List[str]:
    """Names of the videos of a data set, in the order of the annotations.

    Args:
        database: Videos of the subset, see :func:`select_subset`.
        subset: It, for messages.
        block_list: Videos to leave out: names, or a file of names.
        data_root: Folder of a relative file name.
        split: Arguments of :func:`split_names`.
        sample_ratio: Share of the videos to take.
        seed: Seed of that share.

    Returns:
        At least one name.

    Raises:
        FileNotFoundError: If there is no such file of names.
        ValueError: If no video is left, or a part is not known.
    """
    names = _without_blocked(database, subset, block_list, data_root)
    if split is not None:
        names = split_names(names, **split)
    if sample_ratio != 1:
        chosen = sample_indices(len(names), sample_ratio, seed)
        names = [names[index] for index in sorted(chosen)]
    return names


def select_subset(database: Mapping[str, dict],
                  subset: Union[str, Sequence[str], None],
                  ann_file: str) -> Dict[str, dict]:
    """Videos whose ``subset`` is one of the given names, exactly.

    Raises:
        ValueError: If a name is in no video, with the nearest that is.
    """
    if subset is None:
        return dict(database)
    wanted = [subset] if isinstance(subset, str) else list(subset)
    present = sorted({str(video.get('subset')) for video in database.values()})
    for name in wanted:
        if name not in present:
            raise ValueError(f'subset={name!r} has no video in {ann_file!r}'
                             f'{did_you_mean(name, present)}')
    return {name: video for name, video in database.items()
            if video.get('subset') in wanted}


def _without_blocked(database: Mapping[str, dict], subset: Any,
                     blocked: Union[str, Sequence[str]],
                     data_root: str) -> List[str]:
    """Names of the videos that ``block_list`` leaves."""
    block_list = blocked
    if isinstance(blocked, str):
        blocked = read_names(blocked, data_root, 'block_list')
    names = [name for name in database if name not in set(blocked)]
    if len(names) < len(database):
        print_log(
            f'block_list leaves out {len(database) - len(names)} of '
            f'{len(database)} videos',
            logger='current')
    if not names:
        raise ValueError(f'block_list={block_list!r} leaves none of the '
                         f'{len(database)} videos of subset={subset!r}')
    return names


def split_names(names: Sequence[str], part: str, ratio: float = 0.15,
                seed: int = 0) -> List[str]:
    """One part of a fixed split of videos in two.

    Args:
        names: All videos.
        part: ``train`` or ``val``. The two share no video.
        ratio: Share of ``val``, at least one video.
        seed: Seed of the split. Only it and the set of names matter.

    Returns:
        The part, in the order of ``names``.
    """
    require_choice("split['part']", part, ('train', 'val'))
    if not 0 < ratio < 1 or len(names) < 2:
        raise ValueError(
            f"split['ratio']={ratio} of {len(names)} videos leaves a part "
            'empty; it must be between 0 and 1, with two videos at least')
    order = sorted(names)
    random.Random(seed).shuffle(order)
    count = min(len(order) - 1, max(1, round(ratio * len(order))))
    held_out = set(order[:count])
    return [name for name in names if (name in held_out) == (part == 'val')]
