"""Shorten a pretrained encoder of frames in front of a detector.

    python projects/pretrained_frames/compare_encoders.py --data-root ROOT
        --weights FILE [--work-dir DIR] [--steps ...] [--table]

ROOT holds ``annotations.json`` and ``videos``, FILE the weights of the
encoder (of mmpretrain, or a npz file of its entries). What is done:

- choose: blocks are dropped one by one, chosen by the error of the repaired
  features and repaired, without labels;
- encoders: cut (the same blocks, nothing repaired), repaired (with --refit
  the better, on held-out videos, of the fit in front of the gaps alone and of
  all blocks behind them, too), both (all blocks behind the gaps and both
  layers of each), first (the first blocks, the last repaired);
- map: a linear map of the repaired encoder's features to the full one's, by
  ridge regression; it could be folded into the detector's first convolution;
- align: LoRA, last tokens against the full encoder's, from the repaired one;
- detectors: ActionFormer on the full encoder's features, for every seed, and
  its mAP on the features of every encoder;
- tune: the detector for ten more epochs on the features of an encoder;
- parts: the detector on the repaired encoder's features with one part of their
  error taken away, which says which part it feels;
- folds: the same detectors on two other divisions of the videos.

Features are cached. Every result is a line of ``results.jsonl``; what has one
is not done again, so a stopped run goes on. The table has means over seeds
and intervals by bootstrap over videos.
"""
import argparse
import copy
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import mmblockdrop  # noqa: F401
from mmblockdrop.data.annotations import choose_videos, load_database
from mmblockdrop.evaluation import TADMetric
from mmblockdrop.evaluation.average_precision import (match_detections,
                                                      matched_precision,
                                                      resampled_map)
from mmblockdrop.evaluation.tad_metric import flatten_videos, group_windows
from mmblockdrop.utils.checkpoint import read_checkpoint
from mmblockdrop.utils.io import whole_file

import frame_encoders
import numpy as np
import torch
from frame_encoders import (Encoders, Frames, align, choose, cut, first_blocks,
                            refitted, save)
from mmengine.config import Config
from mmengine.runner import Runner

CONFIG = (Path(__file__).parent /
          'configs/actionformer_dinov2-small_30e_ceiling-adl.py')
STEPS = ('choose', 'encoders', 'map', 'detectors', 'align', 'tune', 'parts',
         'folds')
KINDS = ('repaired', 'both', 'cut', 'first')
LOADERS = ('train', 'test')
#: Videos by whose feature error is chosen, out of the training videos.
HELD = dict(part='val', ratio=0.2, seed=0)


class Results:
    """Lines of JSON by key.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: Dict[str, Dict[str, Any]] = {}
        if path.exists():
            content = path.read_text()
            if not content.endswith('\n'):
                path.write_text(f'{content}\n')
            for text in content.splitlines():
                try:
                    line = json.loads(text)
                except ValueError:  # the last one of a killed run
                    continue
                self.lines[line['key']] = line

    def add(self, key: str, **values: Any) -> None:
        """Add a line."""
        self.lines[key] = dict(key=key, **values)
        with self.path.open('a') as file:
            file.write(json.dumps(self.lines[key]) + '\n')

    def __contains__(self, key: str) -> bool:
        return key in self.lines


class Detectors:
    """Detectors on cached features.

    Args:
        cfg: Config of the end-to-end localizer.
        data_root: Folder of the data.
        folder: Where everything goes.
        encoders: Give the features.
        results: Takes the metrics.
    """

    def __init__(self, cfg: Config, data_root: Path, folder: Path,
                 encoders: Encoders, results: Results) -> None:
        self.cfg, self.folder = cfg, folder
        self.encoders, self.results = encoders, results
        self.database = load_database(str(data_root / 'annotations.json'))
        self.folds = [self._write(i, names)
                      for i, names in enumerate(self._test_videos())]

    def _test_videos(self) -> List[List[str]]:
        """Test videos of the folds; those of the data's own come first."""
        own = [v for v, x in self.database.items() if x['subset'] == 'test']
        rest = sorted(set(self.database) - set(own))
        return [own, rest[::2], rest[1::2]]

    def _write(self, fold: int, test: Sequence[str]) -> Dict[str, Any]:
        """Annotation file and videos of a fold."""
        database = {
            name: dict(entry, subset='test' if name in test else 'training')
            for name, entry in self.database.items()
        }
        path = self.folder / f'fold{fold}.json'
        path.write_text(json.dumps(dict(database=database)))
        return dict(
            ann_file=str(path),
            test=list(test),
            training=[v for v in database if v not in test])

    def config(self, fold: int, features: Path) -> Config:
        """Config of a detector on features."""
        cfg = copy.deepcopy(self.cfg)
        cfg.model.backbone = None
        cfg.model.data_preprocessor = dict(
            type='mmengine.BaseDataPreprocessor')
        pipeline = [
            dict(type='mmblockdrop.LoadFeatures'),
            dict(type='mmblockdrop.SampleWindow'),
            dict(type='mmblockdrop.PackTADInputs')
        ]
        for name in LOADERS:
            loader = cfg[f'{name}_dataloader']
            loader.update(num_workers=0, persistent_workers=False)
            loader.dataset.update(
                ann_file=self.folds[fold]['ann_file'],
                data_root='', pipeline=pipeline, split=None)
            loader.dataset.data_prefix = dict(feature=str(features.resolve()))
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
        return cfg

    def train(self, fold: int, seed: int, encoder: str = 'full',
              epochs: Optional[int] = None, start: Optional[Path] = None,
              lr: Optional[float] = None) -> Path:
        """Train a detector, unless it is there.

        Args:
            fold: The fold.
            seed: Seed.
            encoder: Whose features it sees.
            epochs: How many; by default the config's.
            start: Checkpoint to begin with.
            lr: Learning rate; by default the config's.

        Returns:
            Its checkpoint.
        """
        kind = 'tuned' if start else 'trained'
        work = self.folder / f'detectors/{kind}-{encoder}/fold{fold}-{seed}'
        done = work / 'last.pth'
        if done.exists():
            return done
        features = self.encoders.features(encoder,
                                          self.folds[fold]['training'])
        cfg = self.config(fold, features)
        cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
        cfg.work_dir = str(work)
        cfg.randomness = dict(seed=seed)
        cfg.train_cfg.max_epochs = epochs or cfg.train_cfg.max_epochs
        cfg.load_from = start and str(start)
        if lr:
            cfg.optim_wrapper.optimizer.lr = lr
        cfg.default_hooks.checkpoint.update(
            interval=cfg.train_cfg.max_epochs, save_optimizer=False)
        cfg.log_level = 'WARNING'
        cfg.experiment_name = f'{kind}-{encoder}-{fold}-{seed}'
        began = time.process_time()
        runner = Runner.from_cfg(cfg)
        runner.train()
        with whole_file(done) as partial:
            torch.save(dict(state_dict=runner.model.state_dict()), partial)
        for path in work.glob('epoch_*.pth'):
            path.unlink()
        print(f'{cfg.experiment_name}: {time.process_time() - began:.0f} s',
              flush=True)
        return done

    def test(self, row: str, fold: int, seed: int, encoder: str,
             checkpoint: Path) -> None:
        """Test a detector on an encoder's features, unless done.

        Args:
            row: Name of the result.
            fold: The fold.
            seed: Seed.
            encoder: Whose features it sees.
            checkpoint: The detector.
        """
        key = f'test {row} {fold} {seed}'
        if key in self.results and self.windows(row, fold, seed).exists():
            return
        features = self.encoders.features(encoder, self.folds[fold]['test'])
        metric = evaluate(self.config(fold, features), checkpoint)
        path = self.windows(row, fold, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            torch.save(metric.results, partial)
        value, _ = mean_ap(metric.results, resamples=0)
        self.results.add(key, mAP=value)
        print(f'{key}: {100 * value:.1f}', flush=True)

    def windows(self, row: str, fold: int, seed: int) -> Path:
        """File of the detections of a result."""
        return self.folder / f'detections/{row}/fold{fold}-{seed}.pth'


def evaluate(cfg: Config, checkpoint: Path) -> TADMetric:
    """Run a detector over the test videos.

    Args:
        cfg: Its config.
        checkpoint: Its weights.

    Returns:
        The metric that has seen all windows.
    """
    from mmblockdrop.registry import MODELS
    model = MODELS.build(cfg.model)
    model.load_state_dict(
        read_checkpoint(checkpoint, 'detector')['state_dict'])
    model.eval()
    loader = Runner.build_dataloader(cfg.test_dataloader)
    metric = TADMetric()
    metric.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            found = model.val_step(batch)
            metric.process(batch, [sample.to_dict() for sample in found])
    return metric


def mean_ap(results: Sequence[dict], resamples: int = 1000,
            thresholds: Optional[Sequence[float]] = None) -> Any:
    """mAP of all videos and of resamples of them.

    Args:
        results: What ``TADMetric`` keeps.
        resamples: How many.
        thresholds: tIoU; by default the metric's.

    Returns:
        The mAP and those of the resamples, the same videos in every call.
    """
    metric = TADMetric()
    videos = group_windows(results)
    found = {name: metric.merge(w) for name, w in videos.items()}
    gt, det = flatten_videos(videos, found)
    matches = match_detections(
        gt, det, thresholds or metric.tiou_thresholds, num_videos=len(videos))
    value = float(matched_precision(matches).ap.mean())
    if not resamples:
        return value, None
    return value, resampled_map(matches, resamples).mean(1)


def encoder_steps(encoders: Encoders, results: Results,
                  args: argparse.Namespace) -> None:
    """Choose the blocks; make cut, repaired and first encoders."""
    if 'choose' in args.steps:
        choose(encoders, min(args.blocks), args.batches, results.add)
    if 'encoders' not in args.steps:
        return

    def make(name: str, build: Callable) -> None:
        if not encoders.path(name).exists():
            model, removed = build()
            encoders.keep(name, model, removed)
        if f'error {name}' not in results:
            results.add(f'error {name}', removed=encoders.removed(name),
                        **encoders.error(name))
            print(results.lines[f'error {name}'], flush=True)

    for blocks in args.blocks:
        fold = f'fold-{blocks}'
        removed = encoders.removed(fold)
        make(fold, lambda: None)
        if 'cut' in args.kinds:
            make(f'cut-{blocks}', lambda: (cut(encoders, removed), removed))
        if 'first' in args.kinds:
            make(f'first-{blocks}',
                 lambda: first_blocks(encoders, blocks, args.batches))

        def refit(name: str = 'refit', both_layers: bool = False) -> Any:
            began = time.process_time()
            model, entries = refitted(encoders, fold, args.batches,
                                      both_layers)
            results.add(f'{name} {blocks}', repair=entries,
                        seconds=time.process_time() - began)
            return model, removed

        if 'both' in args.kinds:
            make(f'both-{blocks}', lambda: refit('both', True))
        if 'repaired' not in args.kinds:
            continue
        if blocks in args.refit:
            make(f'refit-{blocks}', refit)

        def better() -> Any:
            errors = {n: results.lines[f'error {n}-{blocks}']['all']
                      for n in ('fold', 'refit')
                      if f'error {n}-{blocks}' in results}
            best = min(errors, key=errors.__getitem__)
            return encoders.load(f'{best}-{blocks}'), removed

        make(f'repaired-{blocks}', better)


def map_step(encoders: Encoders, results: Results,
             args: argparse.Namespace) -> None:
    """Fit linear maps behind repaired encoders."""
    for blocks in args.mapped:
        name = f'mapped-{blocks}'
        if not encoders.path(name).exists():
            results.add(f'map {blocks}', **encoders.fit_map(name))
        if f'error {name}' not in results:
            results.add(f'error {name}', removed=encoders.removed(name),
                        **encoders.error(name))
            print(results.lines[f'error {name}'], flush=True)


def align_step(encoders: Encoders, results: Results,
               args: argparse.Namespace) -> None:
    """Align repaired encoders by LoRA."""
    for blocks in args.trained:
        start, name = f'repaired-{blocks}', f'aligned-{blocks}'
        if not encoders.path(name).exists():
            began = time.process_time()
            model = align(encoders, start, args.align_steps,
                          log=results.add)
            encoders.keep(name, model, encoders.removed(start))
            print(f'{name}: {time.process_time() - began:.0f} s', flush=True)
        if f'error {name}' not in results:
            results.add(f'error {name}', removed=encoders.removed(name),
                        **encoders.error(name))
            print(results.lines[f'error {name}'], flush=True)


def detector_steps(detectors: Detectors, fold: int,
                   args: argparse.Namespace, steps: Sequence[str]) -> None:
    """Train, test and tune the detectors of a fold.

    Args:
        detectors: The detectors.
        fold: The fold.
        args: The command line.
        steps: Those of ``STEPS`` to do.
    """
    kinds = [*args.kinds, *(name for name, step in
                            (('mapped', 'map'), ('aligned', 'align'))
                            if step in steps)]
    encoders = detectors.encoders
    names = ['full', *(f'{k}-{b}' for k in kinds for b in args.blocks)]
    names = [n for n in names if encoders.path(n).exists()]
    if fold:
        names = [n for n in names if not n.startswith('cut')]
    for seed in args.seeds:
        trained = detectors.train(fold, seed)
        for name in names:
            detectors.test(name, fold, seed, name, trained)
    if 'tune' not in steps:
        return
    for name in ['full', *(f'{kind}-{b}' for b in args.trained
                           for kind in ('repaired', 'aligned'))]:
        if not encoders.path(name).exists():
            continue
        for seed in args.seeds:
            trained = detectors.train(fold, seed)
            tuned = detectors.train(fold, seed, name, args.tune_epochs,
                                    trained, args.tune_lr)
            detectors.test(f'{name}-tuned', fold, seed, name, tuned)


def parts_step(detectors: Detectors, args: argparse.Namespace) -> None:
    """Test on features that have the error of the repaired one in parts.

    'class' and 'patches' have the full encoder's other half, 'still' has only
    the mean error of each video, 'moving' only what is left of it.
    """
    fold = detectors.folds[0]
    encoders = detectors.encoders
    full = encoders.features('full', fold['test'])
    for blocks in args.mapped:
        source = encoders.features(f'repaired-{blocks}', fold['test'])
        for part in ('class', 'patches', 'still', 'moving'):
            name = f'{part}-{blocks}'
            for video in fold['test']:
                wanted = np.load(full / f'{video}.npy').astype(np.float32)
                gap = np.load(source / f'{video}.npy') - wanted
                half = gap.shape[1] // 2
                still = np.repeat(gap.mean(0)[None], len(gap), 0)
                kept = dict(still=still, moving=gap - still)
                kept['class'] = np.where(np.arange(2 * half) < half, gap, 0)
                kept['patches'] = gap - kept['class']
                save(encoders.folder / f'features/{name}/{video}.npy',
                     (wanted + kept[part]).astype(np.float16))
            for seed in args.seeds:
                detectors.test(name, 0, seed, name, detectors.train(0, seed))


# ------------------------------------------------------------------- table
def summary(detectors: Detectors, results: Results) -> Dict[str, Any]:
    """Means over seeds, with intervals, of the own split and of all folds.

    Args:
        detectors: Know the detections.
        results: All lines.

    Returns:
        ``rows``: split to row to ``mAP``, ``mAP@0.50``, ``seeds``,
        ``interval``, ``difference`` to the full encoder and its
        ``difference_interval``; ``errors``: encoder to feature errors.
    """
    tested: Dict[str, Dict[int, List[int]]] = {}
    for key in results.lines:
        if key.startswith('test '):
            _, row, fold, seed = key.split()
            tested.setdefault(row, {}).setdefault(int(seed),
                                                  []).append(int(fold))
    rows: Dict[str, Any] = {}
    for split, folds in (('own', [0]), ('folds', [0, 1, 2])):
        full: Dict[int, Any] = {}
        for row in sorted(tested, key=lambda r: r != 'full'):
            seeds = sorted(s for s, f in tested[row].items()
                           if set(folds) <= set(f))
            found = {s: _joined(detectors, row, folds, s) for s in seeds}
            if row == 'full':
                full = found
            if found:
                rows.setdefault(split, {})[row] = _row(found, full)
    errors = {k.split()[1]: v for k, v in results.lines.items()
              if k.startswith('error ')}
    return dict(rows=rows, errors=errors)


def _joined(detectors: Detectors, row: str, folds: Sequence[int],
            seed: int) -> Dict[str, Any]:
    """Metrics of the test videos of some folds together."""
    windows = [w for f in folds for w in read_checkpoint(
        detectors.windows(row, f, seed), 'detections')]
    value, resampled = mean_ap(windows)
    half, _ = mean_ap(windows, 0, [0.5])
    return dict(value=value, half=half, resampled=resampled)


def _row(found: Dict[int, Any], full: Dict[int, Any]) -> Dict[str, Any]:
    """One row of the summary, in percent."""
    values = {s: 100 * x['value'] for s, x in found.items()}
    mean = statistics.mean(values.values())
    resampled = np.mean([x['resampled'] for x in found.values()], 0) * 100
    both = sorted(set(found) & set(full))
    gaps = [values[s] - 100 * full[s]['value'] for s in both]
    drawn = np.mean([found[s]['resampled'] - full[s]['resampled']
                     for s in both], 0) * 100
    return {
        'mAP': mean,
        'mAP@0.50': 100 * statistics.mean(x['half'] for x in found.values()),
        'seeds': values,
        'interval': _interval(resampled, mean),
        'difference': statistics.mean(gaps),
        'difference_interval': _interval(drawn, statistics.mean(gaps))
    }


def _interval(resampled: np.ndarray, value: float) -> List[float]:
    """95 % interval, moved so that its median lies at the value."""
    resampled = resampled[~np.isnan(resampled)]
    low, median, high = np.quantile(resampled, (0.025, 0.5, 0.975))
    return [low + value - median, high + value - median]


def table(found: Dict[str, Any]) -> str:
    """A summary as Markdown."""
    lines = []
    for split, rows in found['rows'].items():
        lines += [f'\n{split}\n', '| encoder | feature error | mAP@0.3:0.7 '
                  '| mAP@0.5 | beside full | seeds |',
                  '| --- | ---: | ---: | ---: | ---: | --- |']
        for name, row in rows.items():
            error = found['errors'].get(name, {}).get('all')
            lines.append(
                f'| {name} | {"" if error is None else f"{error:.3f}"} | '
                f'{row["mAP"]:.1f} ({_ends(row["interval"])}) | '
                f'{row["mAP@0.50"]:.1f} | {row["difference"]:+.1f} '
                f'({_ends(row["difference_interval"])}) | '
                f'{", ".join(f"{v:.1f}" for v in row["seeds"].values())} |')
    return '\n'.join(lines)


def _rounded(found: Any) -> Any:
    """The same with four digits behind the point."""
    if isinstance(found, dict):
        return {k: _rounded(v) for k, v in found.items()}
    if isinstance(found, list):
        return [_rounded(v) for v in found]
    return round(found, 4) if isinstance(found, float) else found


def _ends(interval: Sequence[float]) -> str:
    return ' to '.join(f'{x:.1f}' for x in interval)


def weights_file(path: Path, folder: Path) -> str:
    """Checkpoint of weights; a npz file is rewritten as one.

    The image encoder of MobileSAM is given the names of ``TinyViT`` of
    mmpretrain and the norm behind its third stage, which it does not have.
    """
    if path.suffix != '.npz':
        return str(path)
    target = folder / f'{path.stem}.pth'
    if not target.exists():
        with np.load(path) as file, whole_file(target) as partial:
            state = {k: torch.from_numpy(file[k].astype(np.float32))
                     for k in file.files}
            if 'patch_embed.seq.0.c.weight' in state:
                state = _as_tiny_vit(state)
            torch.save(state, partial)
    return str(target)


def _as_tiny_vit(state: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Names of mmpretrain for the weights of MobileSAM."""
    renamed = {}
    for name, value in state.items():
        if not name.startswith(('layers.', 'patch_embed.')):
            continue  # head and neck
        for old, new in (('layers.', 'stages.'), ('.c.', '.conv2d.'),
                         ('.bn.', '.bn2d.')):
            name = name.replace(old, new)
        renamed[name] = value
        if name.endswith('.running_var'):
            count = name.replace('running_var', 'num_batches_tracked')
            renamed[count] = torch.tensor(0)
    width = len(renamed['stages.2.downsample.conv3.bn2d.weight'])
    return dict(renamed, **{'norm2.weight': torch.ones(width),
                            'norm2.bias': torch.zeros(width)})


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, required=True)
    parser.add_argument('--weights', type=Path, required=True)
    parser.add_argument('--config', type=Path, default=CONFIG)
    parser.add_argument('--stack', default='backbone.encoder.layers',
                        help='dotted path of the blocks')
    parser.add_argument('--work-dir', type=Path,
                        default=Path('work_dirs/pretrained_frames'))
    parser.add_argument('--steps', nargs='+', choices=STEPS, default=STEPS)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--blocks', type=int, nargs='+',
                        default=[10, 9, 8, 6, 4], help='remaining blocks')
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=KINDS,
                        help='encoders that are not trained')
    parser.add_argument('--refit', type=int, nargs='*', default=[9, 6, 4],
                        help='numbers of blocks for which all blocks behind '
                        'a gap are fitted, too')
    parser.add_argument('--mapped', type=int, nargs='*', default=[9, 6, 4],
                        help='those behind which a linear map is fitted')
    parser.add_argument('--trained', type=int, nargs='*', default=[6, 4],
                        help='those to align and to tune the detector for')
    parser.add_argument('--batches', type=int, default=20,
                        help='calibration samples of 24 frames')
    parser.add_argument('--align-steps', type=int, default=600)
    parser.add_argument('--tune-epochs', type=int, default=10)
    parser.add_argument('--tune-lr', type=float, default=5e-4)
    parser.add_argument('--float32', action='store_true',
                        help='no bfloat16; for encoders whose stream would be '
                        'in it, as that of TinyViT')
    parser.add_argument('--table', action='store_true',
                        help='do nothing, print what is done')
    args = parser.parse_args(argv)
    frame_encoders.MIXED = not args.float32
    logging.getLogger('mmengine').setLevel(logging.WARNING)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    cfg = Config.fromfile(args.config)
    results = Results(args.work_dir / 'results.jsonl')
    encoders = _encoders(cfg, args)
    detectors = Detectors(cfg, args.data_root, args.work_dir, encoders,
                          results)
    if not args.table:
        encoder_steps(encoders, results, args)
        if 'map' in args.steps:
            map_step(encoders, results, args)
        if 'detectors' in args.steps:
            detector_steps(detectors, 0, args,
                           set(args.steps) - {'align', 'tune'})
        if 'parts' in args.steps:
            parts_step(detectors, args)
        if 'align' in args.steps:
            align_step(encoders, results, args)
        if 'detectors' in args.steps:
            detector_steps(detectors, 0, args, args.steps)
        if 'folds' in args.steps:
            for fold in range(1, len(detectors.folds)):
                detector_steps(detectors, fold, args, args.steps)
    found = summary(detectors, results)
    with whole_file(args.work_dir / 'summary.json') as partial:
        partial.write_text(json.dumps(_rounded(found), indent=1) + '\n')
    print(table(found))


def _encoders(cfg: Config, args: argparse.Namespace) -> Encoders:
    """The encoders of the command line."""
    database = load_database(str(args.data_root / 'annotations.json'))
    training = {n: v for n, v in database.items()
                if v['subset'] == 'training'}
    held = choose_videos(training, 'training', (), '', HELD, 1., 0)
    frames = Frames(args.data_root / 'videos', args.work_dir / 'frames',
                    cfg.image_size)
    return Encoders(cfg.model, args.stack,
                    weights_file(args.weights, args.work_dir),
                    args.work_dir, frames,
                    sorted(set(training) - set(held)), held)


if __name__ == '__main__':
    main()
