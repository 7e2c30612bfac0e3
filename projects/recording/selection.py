"""Record selection steps of the published code on a few clips."""
import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Dict, List, Sequence, Tuple
from unittest import mock

import torch
from detector import (load, merged_entries, record_teacher, student_losses,
                      video_results, window_results)
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from published import INFERENCE, build
from torch import Tensor, nn

Given = Dict[str, Any]


class Wrapped(nn.Module):
    """Stands where the published code has a distributed wrapper."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs) -> Any:
        """Call the detector."""
        return self.module(*args, **kwargs)


def loader(given: Given) -> Any:
    """The scoring windows in the batches of the published loader."""
    from opentad.datasets.base import SlidingWindowDataset

    class ThumosWindows(SlidingWindowDataset):
        """Its name makes the published rule choose by mAP@0.5."""

        def __init__(self) -> None:
            self.class_map = given['classes']

    class Batches(list):
        dataset = ThumosWindows()

    found, index = Batches(), 0
    for names, masks in zip(given['batches'], given['masks']):
        windows = given['windows'][index:index + len(names)]
        found.append(
            dict(
                inputs=torch.stack([given['frames'][n] for n in names]),
                masks=masks,
                metas=[meta(given, window) for window in windows],
                gt_segments=given['gt_segments_grid'][index:index +
                                                      len(names)],
                gt_labels=given['gt_labels_grid'][index:index + len(names)]))
        index += len(names)
    return found


def meta(given: Given, window: Dict[str, Any]) -> Dict[str, Any]:
    """What the published data set says of a window."""
    video = given['annotation']['database'][window['video_name']]
    return dict(
        video_name=window['video_name'],
        fps=video['frame'] / video['duration'],
        duration=video['duration'],
        snippet_stride=given['feature_stride'],
        window_start_frame=window['first_frame'],
        window_size=given['window'],
        offset_frames=0)


def annotate(model: nn.Module, given: Given, post: dict,
             per_video: int) -> None:
    """Annotate the clips with the best detections of the full model.

    Args:
        model: The uncompressed detector.
        given: Gets ``annotation`` and ``gt_*_grid``.
        post: Published post-processing.
        per_video: Actions of a video.
    """
    given['gt_segments_grid'], given['gt_labels_grid'] = [], []
    batches = loader(dict(given, gt_segments_grid=[], gt_labels_grid=[]))
    for batch in batches:
        batch = {k: v for k, v in batch.items() if not k.startswith('gt_')}
        found = window_results(model, batch, post, given['classes'])
        for name, rows in video_results(found, post).items():
            entry = given['annotation']['database'][name]
            chosen = apart(rows, per_video)
            entry['annotations'] = chosen
            grid = torch.tensor([x['segment'] for x in chosen])
            grid = grid * entry['frame'] / entry['duration']
            given['gt_segments_grid'].append(grid / given['feature_stride'])
            given['gt_labels_grid'].append(
                torch.tensor([
                    given['classes'].index(x['label']) for x in chosen
                ]).int())


def apart(rows: Sequence[dict], count: int) -> List[dict]:
    """The best rows whose middles lie apart."""
    chosen: List[dict] = []
    for row in rows:
        start, end = row['segment']
        far = all(not (x['segment'][0] < (start + end) / 2 < x['segment'][1])
                  for x in chosen)
        if far and end - start > 0.3 and len(chosen) < count:
            chosen.append(dict(segment=[start, end], label=row['label']))
    return chosen


def record_round(configs: dict, state: Dict[str, Tensor], given: Given,
                 drops: Sequence[int], post: dict) -> Given:
    """One step of the published selection.

    Args:
        configs: ``student`` and ``teacher``.
        state: Weights of the detector.
        given: Clips and annotation.
        drops: Blocks that were dropped before the step.
        post: Published post-processing.

    Returns:
        One entry of ``rounds`` in the README.
    """
    from opentad.cores import test_engine_sub
    from opentad.evaluations import build_evaluator
    model = build(configs['student'], drops)
    load(model, state)
    remaining = [i for i in range(depth(configs)) if i not in drops]
    forwards: List[int] = []
    for i in remaining:
        model.backbone.model.backbone.blocks[i].register_forward_hook(
            lambda *args: forwards.append(1))
    seen: List[Tuple[dict, dict]] = []

    def evaluator(cfg: dict) -> Any:
        made = build_evaluator(cfg)
        evaluate = made.evaluate

        def keep() -> dict:
            seen.append((cfg['prediction_filename']['results'], evaluate()))
            return seen[-1][1]

        made.evaluate = keep
        return made

    with mock.patch.object(test_engine_sub, 'build_evaluator', evaluator):
        chosen = test_engine_sub.eval_drop_one_block(
            loader(given), Wrapped(model), published_cfg(configs, given, post),
            MMLogger.get_instance('recording', log_level='ERROR'), 0,
            world_size=1)
    return dict(
        drop_idx=list(drops),
        candidates=remaining,
        metrics=[{k: float(v)
                  for k, v in metrics.items()} for _, metrics in seen],
        chosen=chosen,
        drop_idx_after_call=list(model.backbone.model.backbone.drop_idx),
        block_forwards=len(forwards),
        results=[rows_of(found, given['classes']) for found, _ in seen],
        losses=losses(configs, state, given, drops, remaining))


def depth(configs: dict) -> int:
    """Blocks of the uncompressed encoder."""
    return configs['student']['backbone']['backbone']['depth']


def published_cfg(configs: dict, given: Given, post: dict) -> ConfigDict:
    """The part of a published config that selection reads."""
    truth = Path(mkdtemp()) / 'truth.json'
    truth.write_text(json.dumps(given['annotation']))
    return ConfigDict(
        model=dict(backbone=dict(backbone=dict(depth=depth(configs)))),
        work_dir=str(truth.parent),
        inference=INFERENCE,
        post_processing={
            k: v
            for k, v in post.items() if k != 'external_cls'
        },
        train_evaluation=dict(
            type='mAP',
            subset='training',
            tiou_thresholds=given['tiou_thresholds'],
            ground_truth_filename=str(truth),
            thread=1))


def rows_of(found: Dict[str, list], classes: List[str]) -> Dict[str, Tensor]:
    """Detections as rows (start, end, class, score)."""
    return {
        name: torch.tensor([[
            *row['segment'],
            classes.index(row['label']), row['score']
        ] for row in rows])
        for name, rows in found.items()
    }


def losses(configs: dict, state: Dict[str, Tensor], given: Given,
           drops: Sequence[int], remaining: Sequence[int]) -> List[dict]:
    """Mean over batches of every loss, for each candidate."""
    plain = {k[7:]: v for k, v in state.items()}
    merged = {k: v for k, v in plain.items() if 'lora' not in k}
    teacher = build(configs['teacher'])
    load(teacher, {**merged, **merged_entries(plain)})
    model = build(configs['student'], drops)
    load(model, state)
    batches = loader(given)
    hints = [record_teacher(teacher, batch) for batch in batches]
    found = []
    for index in remaining:
        model.backbone.model.backbone.drop_idx = [*drops, index]
        with torch.no_grad():
            values = [
                student_losses(model, hint, batch)
                for hint, batch in zip(hints, batches)
            ]
        found.append({
            name: sum(v[name].item() for v in values) / len(values)
            for name in values[0]
        })
    return found


def tie_spread(given: Given) -> float:
    """How far the order of equal scores moves the metrics.

    Args:
        given: Clips, annotation and ``rounds``.

    Returns:
        Largest change of any metric when detections are shuffled.
    """
    from opentad.evaluations import build_evaluator
    truth = Path(mkdtemp()) / 'truth.json'
    truth.write_text(json.dumps(given['annotation']))
    spread = 0.
    for step in given['rounds'].values():
        for results, metrics in zip(step['results'], step['metrics']):
            shuffled = {
                name: _as_dicts(rows, given['classes'])
                for name, rows in results.items()
            }
            again = build_evaluator(
                dict(
                    type='mAP',
                    subset='training',
                    tiou_thresholds=given['tiou_thresholds'],
                    ground_truth_filename=str(truth),
                    prediction_filename=dict(results=shuffled),
                    thread=1)).evaluate()
            spread = max(spread,
                         *(abs(again[k] - v) for k, v in metrics.items()))
    return float(spread)


def _as_dicts(rows: Tensor, classes: List[str]) -> List[dict]:
    order = torch.randperm(
        len(rows), generator=torch.Generator().manual_seed(0))
    return [
        dict(
            segment=[round(x, 2) for x in row[:2]],
            label=classes[int(row[2])],
            score=round(row[3], 4)) for row in rows[order].tolist()
    ]
