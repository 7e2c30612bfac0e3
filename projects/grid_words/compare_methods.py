"""Compare ways of dropping blocks, with and without training.

    python projects/grid_words/compare_methods.py [--seeds 0 1 2] [--jobs 2]
        [--blocks 6 4 3 2] [--encoder patches|stem]

For every seed, the full model, and from it without training:

- cut: one block after the other, chosen by mAP, nothing else;
- repaired: chosen by the error of the features, without labels, and repaired
  in closed form after every drop;
- repaired-both: the same, with both layers of a block that write;
- repaired-by-map, repaired-both-by-map: as these, chosen by mAP.

With the same training for each, two epochs for every dropped block:

- aligned: one a round, chosen by mAP, aligned with the teacher (the paper);
- repaired-aligned: as repaired-both, aligned after every repair;
- gt-only: as aligned, but ground truth alone;
- random: as aligned, but random blocks;
- at-once: all blocks in one round;
- shallow: from scratch, for as many epochs longer.

Candidates are scored on training videos, the best epoch is chosen on the
validation part, the test part is only read for the table. Finished runs are
reused, interrupted ones are resumed. Run it in the root of the repository.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.utils.io import whole_file

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
CONFIGS = 'projects/grid_words/configs'
METRICS = ('tad/mAP@0.50', 'tad/mAP')
#: Repair in closed form, and the choice without labels that goes with it.
REPAIR = 'train_cfg.repair.type=mmblockdrop.LinearRepair'
NO_REPAIR = 'train_cfg.repair=None'
BOTH = 'train_cfg.repair.both_layers=True'
BY_FEATURES = 'train_cfg.scorer.type=mmblockdrop.FeatureErrorScorer'
NO_TRAINING = 'train_cfg.epochs_per_round=0'
#: What each method uses labels for.
LABELS = {
    'full': 'training',
    'cut': 'choice',
    'repaired': 'none',
    'repaired-both': 'none',
    'repaired-by-map': 'choice',
    'repaired-both-by-map': 'choice',
    'aligned': 'choice, training',
    'repaired-aligned': 'training',
    'gt-only': 'choice, training',
    'random': 'training',
    'at-once': 'choice, training',
    'shallow': 'training'
}
#: Configs of the full model, of block drop, and of ground truth only.
ENCODERS = {
    'patches': [
        f'{CONFIGS}/{method}_vit-w96-d8_{epochs}_grid-words.py'
        for method, epochs in (('actionformer', '36e'), ('blockdrop', '4x2e'),
                               ('blockdrop-gt', '4x2e'))
    ],
    'stem': [
        f'{CONFIGS}/{method}_stem-vit-w96-d8_{epochs}_grid-words.py'
        for method, epochs in (('actionformer', '20e'), ('blockdrop', '4x2e'),
                               ('blockdrop-gt', '4x2e'))
    ],
}


@dataclass
class Method:
    """One way to obtain a model of a given depth.

    Args:
        name: Row of the table.
        blocks: Remaining blocks.
        config: Config that trains it.
        options: ``--cfg-options`` for that config.
        scratch: Trained from scratch, not from the full model.
        round: Which round's result is tested.
        run: Folder of the run that gives it; by default ``name-blocks``.
    """
    name: str
    blocks: int
    config: str
    options: Sequence[str] = ()
    scratch: bool = False
    round: int = 1
    run: str = ''

    def __post_init__(self) -> None:
        self.run = self.run or f'{self.name}-{self.blocks}'


def methods(configs: Sequence[str], depth: int, epochs: int,
            per_round: int, blocks: Sequence[int]) -> List[Method]:
    """Rows of the table.

    Args:
        configs: One entry of ``ENCODERS``.
        depth: Blocks of the full model.
        epochs: Epochs of the full model.
        per_round: Epochs of alignment per dropped block.
        blocks: Remaining blocks, in descending order.

    Returns:
        In the order of the table.
    """
    baseline, block_drop, gt_only = configs
    rows = [Method('full', depth, baseline, scratch=True)]
    for remaining in blocks:
        drops = depth - remaining
        for name, config, options in (
            ('cut', block_drop, [NO_TRAINING, NO_REPAIR]),
            ('repaired', block_drop, [NO_TRAINING, REPAIR, BY_FEATURES]),
            ('repaired-both', block_drop,
             [NO_TRAINING, REPAIR, BOTH, BY_FEATURES]),
            ('repaired-by-map', block_drop, [NO_TRAINING, REPAIR]),
            ('repaired-both-by-map', block_drop,
             [NO_TRAINING, REPAIR, BOTH]),
            ('aligned', block_drop, [NO_REPAIR]),
            ('repaired-aligned', block_drop, [REPAIR, BOTH, BY_FEATURES]),
            ('gt-only', gt_only, [NO_REPAIR]),
            ('random', block_drop,
             [NO_REPAIR, 'train_cfg.scorer.type=mmblockdrop.RandomScorer'])):
            rows.append(
                Method(
                    name,
                    remaining,
                    config,
                    [*options, f'train_cfg.drops={depth - min(blocks)}'],
                    round=drops,
                    run=name))
        rows.append(
            Method('at-once', remaining, block_drop, [
                NO_REPAIR, f'train_cfg.drops={drops}',
                f'train_cfg.drops_per_round={drops}',
                f'train_cfg.epochs_per_round={drops * per_round}'
            ]))
        longer = epochs + drops * per_round
        rows.append(
            Method(
                'shallow',
                remaining,
                baseline, [
                    f'model.backbone.depth={remaining}',
                    f'train_cfg.max_epochs={longer}'
                ],
                scratch=True))
    return rows


def command(method: Method, folder: Path, seed: int,
            full: Path) -> List[str]:
    """Command that trains a method.

    Args:
        method: The method.
        folder: Its work directory.
        seed: Seed.
        full: The trained full model.

    Returns:
        The arguments.
    """
    options = [*method.options, f'randomness.seed={seed}']
    if not method.scratch:
        options.append(f'model.checkpoint={full}')
        if method.name == 'random':
            options.append(f'train_cfg.scorer.seed={seed}')
    return [
        sys.executable, '-W', 'ignore',
        str(TOOLS / 'train.py'), method.config,
        '--work-dir',
        str(folder), '--resume', 'auto', '--cfg-options', *options
    ]


def run(args: Sequence[str], log: Path) -> None:
    """Run a program with its output in a file.

    Args:
        args: Command.
        log: File that the output is added to.

    Raises:
        RuntimeError: It failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        code = subprocess.call(args, stdout=file, stderr=subprocess.STDOUT)
    if code:
        raise RuntimeError(f'status {code}, see {log}')


def outcome(method: Method, root: Path, seed: int, full: Path,
            epochs: int) -> Dict[str, Any]:
    """Train and test a method for one seed, unless done.

    Args:
        method: The method.
        root: Where everything goes.
        seed: Seed.
        full: The trained full model.
        epochs: Epochs of a model from scratch.

    Returns:
        Test metrics.
    """
    result = root / f'seed{seed}' / f'{method.name}-{method.blocks}.json'
    if result.exists():
        return json.loads(result.read_text())
    folder = root / f'seed{seed}' / method.run
    if method.scratch:
        weights = folder / f'epoch_{epochs}.pth'
    else:
        weights = folder / f'round_{method.round}.pth'
    if not weights.exists():
        run(command(method, folder, seed, full), folder / 'train.log')
    tested = root / f'seed{seed}' / f'test-{method.name}-{method.blocks}'
    depth = [o for o in method.options if 'backbone.depth' in o]
    extra = ['--cfg-options', *depth] if depth else []
    run([
        sys.executable, '-W', 'ignore',
        str(TOOLS / 'test.py'), method.config,
        str(weights), '--work-dir',
        str(tested), *extra
    ], tested / 'test.log')
    metrics = json.loads(
        sorted(tested.glob('*/*.json'))[-1].read_text().splitlines()[-1])
    metrics['seconds'] = seconds_of_work(method, folder)
    with whole_file(result) as partial:
        partial.write_text(json.dumps(metrics))
    return metrics


def seconds_of_work(method: Method, folder: Path) -> float:
    """Time that a method took, without the training of the full model.

    Args:
        method: The method.
        folder: Its work directory.

    Returns:
        Seconds: of choosing, repairing and training up to its round, as the
        record says; of a model from scratch those of the training steps.
    """
    if not method.scratch:
        record = json.loads((folder / 'blockdrop.json').read_text())
        return sum(
            sum(entry['seconds'].values())
            for entry in record['rounds'][:method.round])
    total = 0.
    for path in folder.glob('*/vis_data/scalars.json'):
        steps = 0
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 'iter' in entry and 'time' in entry and 'loss' in entry:
                total += entry['time'] * (entry['iter'] - steps)
                steps = entry['iter']
    return total


def compare(rows: Sequence[Method], root: Path, seeds: Sequence[int],
            jobs: int, epochs: int, per_round: int) -> None:
    """All methods for all seeds, ``jobs`` runs at a time.

    Args:
        rows: The methods, the full model first.
        root: Where everything goes.
        seeds: Seeds.
        jobs: Runs side by side.
        epochs: Epochs of the full model.
        per_round: Epochs of alignment per dropped block.
    """
    trained: Dict[int, Future] = {}

    def task(seed: int, group: Sequence[Method]) -> None:
        if group[0] is not rows[0]:
            trained[seed].result()
        full = root / f'seed{seed}' / rows[0].run / f'epoch_{epochs}.pth'
        for method in group:
            longer = epochs + (rows[0].blocks - method.blocks) * per_round
            key = f'{method.name}-{method.blocks}'
            metrics = outcome(method, root, seed, full, longer)
            print(f'seed {seed} {key}: {100 * metrics["tad/mAP"]:.1f}',
                  flush=True)

    groups = [[m for m in rows[1:] if m.run == run]
              for run in dict.fromkeys(m.run for m in rows[1:])]
    with ThreadPoolExecutor(jobs) as pool:
        # First in, first out: whoever waits for a full model finds it done
        # or in work. What takes longest comes last.
        for seed in seeds:
            trained[seed] = pool.submit(task, seed, rows[:1])
        rest = [
            pool.submit(task, seed, group)
            for group in sorted(groups, key=lambda g: g[0].scratch)
            for seed in seeds
        ]
        for future in [*trained.values(), *rest]:
            future.result()


def table(rows: Sequence[Method],
          found: Dict[int, Dict[str, Dict[str, Any]]]) -> str:
    """Mean and spread over the seeds that are finished.

    Args:
        rows: The methods.
        found: Seed to ``name-blocks`` to metrics.

    Returns:
        Markdown.
    """
    lines = [
        '| method | blocks | test mAP@0.5 | test mAP@0.3:0.7 | seconds '
        '| labels for | seeds |',
        '| --- | --- | --- | --- | --- | --- | --- |'
    ]
    for method in rows:
        key = f'{method.name}-{method.blocks}'
        done = [f[key] for f in found.values() if key in f]
        if not done:
            continue
        cells = []
        for metric in METRICS:
            values = [100 * metrics[metric] for metrics in done]
            cell = f'{statistics.mean(values):.1f}'
            if len(values) > 1:
                cell += f' ± {statistics.stdev(values):.1f}'
            cells.append(cell)
        times = [m['seconds'] for m in done if 'seconds' in m]
        cells.append(f'{statistics.median(times):.0f}' if times else '')
        lines.append(f'| {method.name} | {method.blocks} | '
                     f'{" | ".join(cells)} | {LABELS[method.name]} '
                     f'| {len(done)} |')
    return '\n'.join(lines)


#: Rows of the picture: name, label, line.
DRAWN = {
    'cut': ('cut only', dict(color='#D55E00', marker='x', linestyle=':')),
    'repaired-both': ('repaired, nothing trained, no labels',
                      dict(color='#0072B2', marker='o')),
    'aligned': ('cut and aligned (the paper)',
                dict(color='#009E73', marker='s', linestyle='--')),
    'repaired-aligned': ('repaired and aligned',
                         dict(color='#CC79A7', marker='^', linestyle='-.'))
}


def draw(rows: Sequence[Method],
         found: Dict[int, Dict[str, Dict[str, Any]]], path: Path) -> None:
    """Picture of test mAP against the remaining blocks.

    Args:
        rows: The methods, the full model first.
        found: As of :func:`table`.
        path: PNG to write. Bars are standard deviations over the seeds.
    """
    from mmblockdrop.utils.canvas import canvas, save_figure

    def points(name: str) -> List[Tuple[int, float, float]]:
        result = []
        for row in rows:
            values = [
                100 * f[f'{name}-{row.blocks}']['tad/mAP']
                for f in found.values() if f'{name}-{row.blocks}' in f
            ] if row.name == name else []
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.
                result.append((row.blocks, statistics.mean(values), spread))
        return result

    figure = canvas(6.4, 3.6)
    axes = figure.subplots()
    full = points(rows[0].name)
    for depth, mean, _ in full:
        axes.axhline(mean, color='grey', linewidth=1)
        axes.annotate(f'full model, {depth} blocks: {mean:.1f}',
                      (depth, mean), xytext=(0, 4), fontsize=8,
                      textcoords='offset points', color='#555555')
    for name, (label, style) in DRAWN.items():
        line = full + points(name)
        if len(line) > len(full):
            blocks, means, spreads = zip(*line)
            axes.errorbar(blocks, means, yerr=spreads, label=label,
                          capsize=2, **style)
    axes.invert_xaxis()
    axes.set_ylim(0, 100)
    axes.set_xlabel('remaining blocks')
    axes.set_ylabel('test mAP@0.3:0.7 (%)')
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc='lower left')
    save_figure(figure, path)


def finished(rows: Sequence[Method], root: Path,
             seeds: Sequence[int]) -> Dict[int, Dict[str, Dict[str, Any]]]:
    """What earlier calls have found.

    Args:
        rows: The methods.
        root: Where everything is.
        seeds: Seeds.

    Returns:
        Seed to ``name-blocks`` to metrics.
    """
    found: Dict[int, Dict[str, Dict[str, Any]]] = {s: {} for s in seeds}
    for seed in seeds:
        for method in rows:
            key = f'{method.name}-{method.blocks}'
            result = root / f'seed{seed}' / f'{key}.json'
            if result.exists():
                found[seed][key] = json.loads(result.read_text())
    return found


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run everything that is not done yet and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--blocks',
        type=int,
        nargs='+',
        default=[6, 4, 3, 2],
        help='remaining blocks')
    parser.add_argument(
        '--jobs', type=int, default=2, help='runs side by side')
    parser.add_argument(
        '--encoder',
        choices=ENCODERS,
        default='patches',
        help='patches straight into the blocks, or a convolutional stem '
        'in front of them')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='default: work_dirs/compare_grid-ENCODER')
    parser.add_argument(
        '--methods', nargs='+', help='rows to run; all if left out')
    parser.add_argument(
        '--table', action='store_true', help='run nothing, print what is done')
    args = parser.parse_args(argv)
    from mmengine.config import Config
    configs = ENCODERS[args.encoder]
    work_dir = args.work_dir or Path(f'work_dirs/compare_grid-{args.encoder}')
    epochs = Config.fromfile(configs[0]).train_cfg.max_epochs
    drop = Config.fromfile(configs[1])
    per_round = drop.train_cfg.epochs_per_round
    depth = drop.model.localizer.backbone.depth
    if not all(0 < remaining < depth for remaining in args.blocks):
        parser.error(f'--blocks {" ".join(map(str, args.blocks))}: expected '
                     f'numbers from 1 to {depth - 1}')
    rows = methods(configs, depth, epochs, per_round,
                   sorted(set(args.blocks), reverse=True))
    names = list(dict.fromkeys(m.name for m in rows))
    chosen = args.methods or names
    if set(chosen) - set(names):
        parser.error(f'--methods {" ".join(chosen)}: expected some of {names}')
    os.environ.setdefault('OMP_NUM_THREADS',
                          str(max((os.cpu_count() or 1) // args.jobs, 1)))
    if not args.table:
        wanted = [m for m in rows if m is rows[0] or m.name in chosen]
        compare(wanted, work_dir, args.seeds, args.jobs, epochs,
                per_round)
    found = finished(rows, work_dir, args.seeds)
    if any(found.values()):
        draw(rows, found, work_dir / 'table.png')
    text = table(rows, found)
    (work_dir / 'table.md').write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    main()
