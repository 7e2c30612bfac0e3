"""Compare ways of adapting a trained trunk, and drop its blocks afterwards.

    python projects/adatad/compare_adaptation.py [--methods adapter lora full]

On the demonstration videos: a trunk is trained first, with a localizer. Then
each method trains its share of that trunk for three epochs, with a fresh
localizer; and half of the blocks are dropped, one a round: chosen by the error
of the features and repaired in closed form, without training, or chosen by mAP
and aligned for an epoch each. Finished steps are not repeated, interrupted
ones go on, so the program can be stopped at any time; it prints the table of
what is there. Run it in the root of the repository, with data/demo_actions.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.utils.io import whole_file

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
CONFIGS = Path(__file__).resolve().parent / 'configs'
TRUNK = 'configs/demo_actions/actionformer_vit-w64-d8_8e_demo-actions.py'
METHODS = ('adapter', 'lora', 'full')
ROOT = Path('work_dirs/compare_adaptation')
EPOCHS = 3
#: Ways to drop blocks: options of the config.
DROPS = {
    'repaired': [
        'train_cfg.epochs_per_round=0',
        'train_cfg.repair.type=mmblockdrop.LinearRepair',
        'train_cfg.scorer.type=mmblockdrop.FeatureErrorScorer'
    ],
    'aligned': []
}


def config(method: str, drop: bool = False) -> str:
    """Config of a method, or of block drop behind it."""
    name = f'blockdrop-{method}' if drop else method
    found, = CONFIGS.glob(f'{name}_*.py')
    return str(found)


def run(program: str, *args: str, log: Path) -> None:
    """Run a program of tools/ with its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        subprocess.run([sys.executable, '-W', 'ignore',
                        str(TOOLS / program), *args],
                       stdout=file, stderr=subprocess.STDOUT, check=True)


def train(path: str, folder: Path, last: str,
          options: Sequence[str] = ()) -> Path:
    """Train a config, unless that is done; returns its checkpoint."""
    weights = folder / last
    if not weights.exists():
        more = ['--cfg-options', *options] if options else []
        run('train.py', path, '--work-dir', str(folder), '--resume', 'auto',
            *more, log=folder / 'train.log')
    return weights


def test(path: str, weights: Path, name: str) -> Dict[str, Any]:
    """Metrics on the test videos."""
    result = ROOT / f'{name}.json'
    if not result.exists():
        folder = ROOT / f'test-{name}'
        run('test.py', path, str(weights), '--work-dir', str(folder),
            log=folder / 'test.log')
        found = sorted(folder.glob('*/*.json'))[-1].read_text()
        with whole_file(result) as partial:
            partial.write_text(found.splitlines()[-1])
    return json.loads(result.read_text())


def drop(method: str, way: str) -> None:
    """Drop half of the blocks and test at a quarter and at the end."""
    folder = ROOT / f'{method}-{way}'
    path = config(method, drop=True)
    train(path, folder, 'round_4.pth', DROPS[way])
    for dropped in (2, 4):
        test(path, folder / f'round_{dropped}.pth',
             f'{method}-{way}-{8 - dropped}')


def trained_values(path: str) -> Dict[str, int]:
    """How many values of the encoder a config trains, and bytes of a step."""
    from mmblockdrop.registry import MODELS

    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from step_memory import bytes_of_step
    init_default_scope('mmaction')
    cfg = Config.fromfile(path).model
    model = MODELS.build(cfg.backbone).train()
    found = bytes_of_step(model, torch.zeros(1, 1, 256, 48, 48),
                          cfg.clip_frames)
    return found


def table(methods: Sequence[str]) -> str:
    """What is there so far, as Markdown."""
    lines = [
        '| trained | drops | blocks | trained of 8 blocks (k) | memory of a '
        'step with 8 blocks (MiB) | test mAP@0.5 | test mAP@0.3:0.7 |',
        '| --- | --- | --: | --: | --: | --: | --: |'
    ]
    for method in methods:
        cost = trained_values(config(method))
        rows = [(8, 'none dropped', f'{method}-8')]
        rows += [(blocks, way, f'{method}-{way}-{blocks}')
                 for way in DROPS for blocks in (6, 4)]
        for blocks, way, name in rows:
            result = ROOT / f'{name}.json'
            if not result.exists():
                continue
            metrics = json.loads(result.read_text())
            memory = (cost['activations'] + cost['trained']) / 2**20
            lines.append(
                f'| {method} | {way} | {blocks} | {cost["params"] / 1e3:.0f} '
                f'| {memory:.0f} | {100 * metrics["tad/mAP@0.50"]:.1f} | '
                f'{100 * metrics["tad/mAP"]:.1f} |')
    return '\n'.join(lines)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run what is missing, in turn, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--methods', nargs='+', choices=METHODS, default=METHODS)
    parser.add_argument(
        '--table', action='store_true', help='run nothing')
    args = parser.parse_args(argv)
    steps: List[Any] = [] if args.table else [*args.methods]
    if steps:
        train(TRUNK, ROOT / 'trunk', 'epoch_8.pth')
    for method in steps:
        weights = train(config(method), ROOT / method, f'epoch_{EPOCHS}.pth')
        test(config(method), weights, f'{method}-8')
    for way in DROPS:
        for method in steps:
            drop(method, way)
    print(table(args.methods))


if __name__ == '__main__':
    main()
