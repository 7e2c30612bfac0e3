"""Compare ways of adapting a trained trunk, and drop its blocks afterwards.

    python projects/adatad/compare_adaptation.py [--methods adapter lora full]

On the demonstration videos: a trunk is trained first, with a localizer. Then
each method trains its share of that trunk for three epochs, with a fresh
localizer; half of the blocks are dropped, one a round, with an epoch of
alignment each. Finished steps are not repeated, interrupted ones go on, so
the program can be stopped at any time; it prints the table of what is there.
Run it in the root of the repository, where data/demo_actions is.
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


def train(path: str, folder: Path, last: str) -> Path:
    """Train a config, unless that is done; returns its checkpoint."""
    weights = folder / last
    if not weights.exists():
        run('train.py', path, '--work-dir', str(folder), '--resume', 'auto',
            log=folder / 'train.log')
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
        '| method | blocks | trained of the encoder (k) | memory of a step '
        '(MiB) | test mAP@0.5 | test mAP@0.3:0.7 |',
        '| --- | --: | --: | --: | --: | --: |'
    ]
    for method in methods:
        cost = trained_values(config(method))
        for blocks in (8, 6, 4):
            result = ROOT / f'{method}-{blocks}.json'
            if not result.exists():
                continue
            metrics = json.loads(result.read_text())
            cells = ('', '') if blocks < 8 else (
                f'{cost["params"] / 1e3:.0f}',
                f'{(cost["activations"] + cost["trained"]) / 2**20:.0f}')
            lines.append(f'| {method} | {blocks} | {cells[0]} | {cells[1]} | '
                         f'{100 * metrics["tad/mAP@0.50"]:.1f} | '
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
    for method in steps:
        folder = ROOT / f'blockdrop-{method}'
        path = config(method, drop=True)
        train(path, folder, 'round_4.pth')
        for dropped in (2, 4):
            test(path, folder / f'round_{dropped}.pth',
                 f'{method}-{8 - dropped}')
    print(table(args.methods))


if __name__ == '__main__':
    main()
