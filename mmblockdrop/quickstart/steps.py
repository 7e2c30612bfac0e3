"""The seven steps, from videos to a table and pictures."""
import copy
import gc
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Union

import mmblockdrop
from mmblockdrop.apis import localization_text, localize_to_files
from mmblockdrop.compression.preview_config import preview_config
from mmblockdrop.data.annotations import load_database
from mmblockdrop.data.prepare.run_check import ROLES, check_data, check_disk
from mmblockdrop.data.prepare.synthetic import (DemoSpec, is_finished,
                                                make_dataset)
from mmblockdrop.report import cost_cells, markdown_table
from mmblockdrop.report.preview import describe_preview
from mmblockdrop.report.text import (format_interval, format_metric,
                                     interval_of, sample_text)
from mmblockdrop.utils.config import type_name
from mmblockdrop.utils.console import ConsoleRunner
from mmblockdrop.utils.io import read_json, whole_file, write_json
from mmblockdrop.utils.lock import owned

from mmengine.config import Config
from mmengine.runner import Runner

from .origin import set_aside_unless_same
from .own_videos import FULL, find_readable, write_configs

CONFIGS = Path(mmblockdrop.__file__).parent / '.mim/configs/demo_actions'


class ConfigPair(NamedTuple):
    """Config of the full localizer, and of its block drop."""
    baseline: Path
    block_drop: Path


DEMO = ConfigPair(CONFIGS / 'actionformer_vit-w64-d8_8e_demo-actions.py',
                  CONFIGS / 'blockdrop_vit-w64-d8_2x1e_demo-actions.py')


class StepFailed(RuntimeError):
    """A step ended with an error, its cause; what is finished stays."""


def quickstart(data: Union[str, Path, None] = None,
               work: Union[str, Path, None] = None,
               configs: ConfigPair = DEMO,
               demo: DemoSpec = DemoSpec(),
               backbone: Optional[str] = None) -> Path:
    """Train, compress, test and localize.

    What is finished is reused as long as configs and annotations stay the
    same; an interrupted step goes on from its last epoch.

    Args:
        data: Folder with ``annotations.json`` in ActivityNet's format and a
            folder ``videos``; configs are derived for them. None generates
            demonstration videos where ``configs.baseline`` reads its data.
        work: Where results go. Defaults to ``work_dirs/quickstart``, with
            ``data`` to ``work_dirs/quickstart_<name of the folder>``, in the
            current folder.
        configs: What to run, or to derive configs from.
        demo: The demonstration videos.
        backbone: With ``data``: pretrained encoder of frames, see
            :func:`~mmblockdrop.quickstart.own_videos.pretrained_encoder`.
            Defaults to None, an encoder that is trained from scratch.

    Returns:
        The table of results; pictures lie beside it and in ``blockdrop``.

    Raises:
        FileNotFoundError: ``data`` or a part of it does not exist.
        ValueError: The annotations lack what is needed.
        StepFailed: A step ended with an error.
    """
    if data is None:
        work = Path(work or 'work_dirs/quickstart')
        work.mkdir(parents=True, exist_ok=True)
        loader = Config.fromfile(configs.baseline).train_dataloader
        data = Path(loader.dataset.data_root)
        step(1, 'Demonstration videos', lambda: make_dataset(
            str(data), demo, min(2, os.cpu_count() or 1)),
             is_finished(str(data), demo))
    else:
        data = Path(data).resolve()
        work = Path(work or f'work_dirs/quickstart_{data.name}')
        headline(1, f'Videos: {data}')
        configs = ConfigPair(*write_configs(data, work, *configs,
                                            backbone))
    set_aside_unless_same(work, configs, data / 'annotations.json')

    full, drop = map(Config.fromfile, configs)
    weights, rounds = work / FULL, work / 'blockdrop'
    drop.model.checkpoint = str(weights)
    if not run_has_finished(rounds / 'blockdrop.json'):
        lines = [describe_model(full), *check_data(full, ROLES)]
        print('\n'.join(lines), flush=True)
    step(2, 'Training the full detector',
         lambda: train_full(full, weights), weights.exists())
    previewed = work / 'preview' / 'blockdrop.json'
    step(3, 'Preview: shorter models, nothing trained',
         lambda: preview(drop, work),
         run_has_finished(previewed) and is_newer(previewed, weights))
    print(f'\n{describe_preview(read_json(previewed, "preview"))}')
    print('Picture:', work / 'preview.png', flush=True)
    step(4, 'Progressive block drop', lambda: train(drop, rounds),
         run_has_finished(rounds / 'blockdrop.json'))
    record = read_json(rounds / 'blockdrop.json', 'record')
    compressed = rounds / record['rounds'][-1]['checkpoint']
    tested = []
    for number, name, checkpoint, folder in (
            (5, 'full', weights, work / 'test'),
            (6, 'compressed', compressed, work / 'test_short')):
        metrics = folder / 'metrics.json'
        step(number, f'Testing the {name} detector', lambda: write_json(
            test(drop, checkpoint, folder), metrics),
             is_newer(metrics, checkpoint))
        tested.append(read_json(metrics, 'metrics'))
    video = unseen_video(data)
    picture = work / f'{video.stem}.png'
    step(7, 'Localizing one unseen video', lambda: localize(
        video, drop, compressed, weights, data / 'annotations.json', work),
         is_newer(picture, compressed))

    text = results_table(record, *tested)
    table = work / 'results.md'
    with whole_file(table) as temporary:
        temporary.write_text(text + '\n')
    print('\n' + text)
    print('\nTable:', table)
    print('Rounds:', rounds / 'blockdrop.md')
    print('Pictures:', *sorted([*rounds.glob('*.png'), *work.glob('*.png')]),
          sep='\n  ')
    return table


def headline(number: int, what: str) -> None:
    """Say which step begins."""
    print(f'\n=== {number}/7 {what}', flush=True)


def step(number: int, what: str, action: Callable[[], Any],
         is_done: bool) -> None:
    """Do one step, unless its result is there.

    Args:
        number: For the headline.
        what: For the headline.
        action: Does it.
        is_done: Whether its result is there already.

    Raises:
        StepFailed: The action raised an error, which is its cause.
    """
    headline(number, what)
    if is_done:
        print('Finished before: reused', flush=True)
        return
    began = time.perf_counter()
    try:
        action()
    except Exception as error:
        raise StepFailed(f'{what} failed with {type(error).__name__}: {error}'
                         ) from error
    gc.collect()  # worker processes of loaders end with their loader
    print(f'{what}: {time.perf_counter() - began:.0f} s', flush=True)


def describe_model(cfg: Config) -> str:
    """Say what is trained, and on which pixels.

    Args:
        cfg: Config of the full localizer.

    Returns:
        One line.
    """
    backbone, loader = cfg.model.backbone, cfg.train_dataloader
    text = f'Model: {type_name(backbone)}'
    if {'depth', 'embed_dims'} <= {*backbone}:
        text += (f' of {backbone.depth} blocks of width '
                 f'{backbone.embed_dims}')
    if 'img_size' in backbone:
        colour = 'grey' if backbone.get('in_channels', 3) == 1 else 'colour'
        text += f', on {backbone.img_size} x {backbone.img_size} {colour}'
        text += ' pixels'
    pretrained = (backbone.get('pretrained') or cfg.get('load_from')
                  or "'Pretrained'" in str(backbone))
    text += ', pretrained' if pretrained else (
        ', trained from scratch: quick, and weaker than a pretrained encoder '
        '(--backbone)')
    dataset = loader.dataset
    seconds = None
    if dataset.get('sample_fps'):
        seconds = dataset.window_size / dataset.sample_fps
    return text + (f'; windows of {seconds:.1f} s' if seconds else '')


def build_runner(cfg: Config) -> Runner:
    """Runner with a short console that loads checkpoints strictly."""
    runner = ConsoleRunner.from_cfg(cfg)
    runner.register_hook(dict(type='mmblockdrop.StrictLoadHook'))
    return runner


def train(cfg: Config, work_dir: Path) -> Runner:
    """Train, or go on with a training that was interrupted.

    Args:
        cfg: The config.
        work_dir: Where logs and models go.

    Returns:
        The runner.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.resume = str(work_dir), True
    with owned(work_dir):
        runner = build_runner(cfg)
        check_disk(runner)
        runner.train()
    return runner


def preview(cfg: Config, work_dir: Path) -> None:
    """Measure shorter models, repaired in closed form, or go on with it.

    Args:
        cfg: Config of the block drop.
        work_dir: Where ``preview.json``, table and picture go.
    """
    build_runner(preview_config(cfg, work_dir)).train()


def train_full(cfg: Config, weights: Path) -> None:
    """Train the full localizer and keep its best epoch on validation.

    A round of block drop keeps its best epoch too, so that the full and the
    compressed localizer are compared alike.

    Args:
        cfg: The config.
        weights: Where the best epoch goes.
    """
    cfg = copy.deepcopy(cfg)
    cfg.default_hooks.checkpoint.update(save_best='tad/mAP', rule='greater')
    hub = train(cfg, weights.parent).message_hub
    best = hub.get_info('best_ckpt') or (
        weights.parent / f'epoch_{cfg.train_cfg.max_epochs}.pth')
    best = weights.parent / Path(best).name
    with whole_file(weights) as temporary:
        shutil.copyfile(best, temporary)
    print(f'The best epoch on the validation videos is kept: {best.name}')


def test(cfg: Config, checkpoint: Path, work_dir: Path) -> Dict[str, float]:
    """Test a checkpoint.

    Args:
        cfg: The config.
        checkpoint: The weights, with the record of dropped blocks if any.
        work_dir: Where logs go.

    Returns:
        The metrics.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.load_from = str(work_dir), str(checkpoint)
    return build_runner(cfg).test()


def localize(video: Path, cfg: Config, compressed: Path, full: Path,
             ann_file: Path, out_dir: Path) -> None:
    """Localize a video and print what was found."""
    found = localize_to_files(
        video, cfg, compressed, out_dir, full, ann_file=ann_file)
    print(localization_text(found))


def run_has_finished(report: Path) -> bool:
    """Whether a block-drop run has ended.

    Args:
        report: Its ``blockdrop.json``.

    Returns:
        Whether the file is there and says so.
    """
    return report.exists() and read_json(report, 'record').get(
        'finished', False)


def is_newer(result: Path, source: Path) -> bool:
    """Whether a result is there and was made after what it comes from.

    Args:
        result: File that a step writes.
        source: File that it reads.

    Returns:
        Whether the step need not run again.
    """
    return (result.is_file()
            and result.stat().st_mtime >= source.stat().st_mtime)


def unseen_video(data: Path) -> Path:
    """First test video that can be read and holds an action.

    Where there are no test videos it is one of validation.

    Args:
        data: Folder of the data.

    Returns:
        The video.

    Raises:
        ValueError: There is none.
    """
    path = data / 'annotations.json'
    database = load_database(str(path))
    for subset in ('test', 'val'):
        for name, entry in sorted(database.items()):
            if entry['subset'].lower().startswith(
                    subset) and entry['annotations']:
                found: Optional[Path] = find_readable(data, name)
                if found is not None:
                    return found
    raise ValueError(f'{path} has no test video with an action in '
                     f'{data / "videos"} that can be read')


def results_table(record: Dict[str, Any], full: Dict[str, float],
                  compressed: Dict[str, float]) -> str:
    """Lay out the full and the compressed model side by side.

    Args:
        record: Content of ``blockdrop.json``.
        full: Test metrics of the full model.
        compressed: Test metrics of the compressed model.

    Returns:
        Markdown.
    """
    metric = record['metric']
    baseline = record['baseline']
    rows = []
    for name, entry, test in (('full', baseline, full),
                              ('compressed', record['rounds'][-1],
                               compressed)):
        row = dict(model=name, blocks=str(len(entry['blocks_left'])))
        row.update(cost_cells(entry, {} if entry is baseline else baseline))
        value = entry.get('metric_after', entry.get('metric'))
        row['validation mAP (%)'] = format_metric(
            value, metric) + format_interval(
                interval_of(record, entry), metric)
        for title, key in (('test mAP@0.5 (%)', 'tad/mAP@0.50'),
                           ('test mAP (%)', 'tad/mAP')):
            row[title] = format_metric(test[key], key) + format_interval(
                test.get(f'{key}_interval'), key)
        rows.append(row)
    notes = [f'{subset}: {text}' for subset, text in (
        ('Validation', sample_text(baseline.get('metrics') or {}, metric)),
        ('test', sample_text(full, 'tad/mAP'))) if text]
    text = markdown_table(rows)
    if notes:
        text += ('\n\n' + '; '.join(notes) + '. In brackets: 95 % intervals '
                 'by bootstrap over these videos. Validation videos chose the '
                 'epochs, so the test videos count.')
    low, high = test_overlap(full, compressed)
    if low < high:
        text += ('\nThe intervals of test mAP overlap: these videos do not '
                 'tell which of the two is better.')
    return text


def test_overlap(full: Dict[str, Any],
                 compressed: Dict[str, Any]) -> Tuple[float, float]:
    """Where the intervals of two models overlap.

    Args:
        full: Test metrics.
        compressed: Test metrics.

    Returns:
        Low and high end; the low one is not below the high one if they do not,
        or are not known.
    """
    key = 'tad/mAP_interval'
    if key not in full or key not in compressed:
        return 1., 0.
    lows, highs = zip(full[key], compressed[key])
    return max(lows), min(highs)
