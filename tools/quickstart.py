"""Train, compress, test and localize, from videos to table and pictures.

    python tools/quickstart.py [--data ROOT] [--work-dir DIR]

Without ``--data`` it generates demonstration videos. ``ROOT`` holds
``annotations.json`` in ActivityNet's format and a folder ``videos``. What is
finished is reused, as long as configs and annotations stay the same; an
interrupted step goes on from its last epoch.
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

HERE = Path(__file__).resolve().parent
DEMO = 'configs/demo_actions/'
BASELINE = DEMO + 'actionformer_vit-w64-d8_8e_demo-actions.py'
BLOCK_DROP = DEMO + 'blockdrop_vit-w64-d8_2x1e_demo-actions.py'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--data', type=Path, help='folder with annotations.json and videos/')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='where results go (default: work_dirs/quickstart, with --data '
        'work_dirs/quickstart_<name of the folder>)')
    return parser.parse_args(argv)


def step(number: int, what: str, command: Sequence[str],
         done: Callable[[], bool] = lambda: False) -> None:
    """Run one program, unless its result is there.

    Args:
        number: For the headline.
        what: For the headline.
        command: Program of this project and arguments.
        done: Tells whether its result is there already.

    Raises:
        SystemExit: The program failed; what is finished stays.
    """
    print(f'\n=== {number}/6 {what}', flush=True)
    if done():
        print('Finished before: reused', flush=True)
        return
    began = time.perf_counter()
    code = subprocess.call([sys.executable, '-W', 'ignore', *command])
    if code:
        sys.exit(f'{what}: failed with status {code}. Run the same command '
                 'again to go on from here.')
    print(f'{what}: {time.perf_counter() - began:.0f} s', flush=True)


def is_finished(report: Path) -> bool:
    """Whether a block-drop run has ended.

    Args:
        report: Its ``blockdrop.json``.

    Returns:
        Whether the file is there and says so.
    """
    return report.exists() and json.loads(report.read_text()).get(
        'finished', False)


def is_newer(result: Optional[Path], source: Path) -> bool:
    """Whether a result is there and was made after what it comes from.

    Args:
        result: File that a step writes.
        source: File that it reads.

    Returns:
        Whether the step need not run again.
    """
    return (result is not None and result.is_file()
            and result.stat().st_mtime >= source.stat().st_mtime)


def metrics_file(folder: Path) -> Optional[Path]:
    """Metrics that ``tools/test.py`` wrote last into a work directory."""
    return max(folder.glob('*/*.json'), default=None)


def test(config: str, checkpoint: Path, out: Path) -> List[str]:
    """Command that tests a checkpoint and keeps the metrics."""
    return [
        str(HERE / 'test.py'), config,
        str(checkpoint), '--work-dir',
        str(out)
    ]


def read_metrics(folder: Path) -> Dict[str, float]:
    """Metrics that ``tools/test.py`` wrote last into a work directory.

    Args:
        folder: Its ``--work-dir``.

    Returns:
        The metrics.

    Raises:
        FileNotFoundError: None were written.
    """
    path = metrics_file(folder)
    if path is None:
        raise FileNotFoundError(f'{folder} holds no metrics of tools/test.py')
    return json.loads(path.read_text().splitlines()[-1])


def results_table(record: Dict[str, Any], teacher: Dict[str, float],
                  compressed: Dict[str, float]) -> str:
    """Lay out what was there before and what is left.

    Args:
        record: Content of ``blockdrop.json``.
        teacher: Test metrics of the full model.
        compressed: Test metrics of the compressed model.

    Returns:
        Markdown.
    """
    last = record['rounds'][-1]
    rows = [('full', record['baseline'], teacher), ('compressed', last,
                                                    compressed)]
    lines = [
        '| model | blocks | params (M) | GMACs | latency (ms) | test mAP@0.5 '
        '| test mAP |', '| --- | --- | --- | --- | --- | --- | --- |'
    ]
    for name, entry, metrics in rows:
        lines.append(
            f'| {name} | {len(entry["blocks_left"])} '
            f'| {entry["params"] / 1e6:.2f} | {entry["macs"] / 1e9:.2f} '
            f'| {entry["latency_ms"]:.0f} '
            f'| {100 * metrics["tad/mAP@0.50"]:.1f} '
            f'| {100 * metrics["tad/mAP"]:.1f} |')
    return '\n'.join(lines)


def unseen_video(data: Path) -> Path:
    """First test video that can be read and holds an action.

    Where there are no test videos it is one of validation.

    Args:
        data: Folder of the data.

    Returns:
        The video.

    Raises:
        SystemExit: There is none.
    """
    from own_videos import find_readable
    path = data / 'annotations.json'
    database = json.loads(path.read_text('utf-8-sig'))['database']
    for subset in ('test', 'val'):
        for name, entry in sorted(database.items()):
            if entry['subset'].lower().startswith(
                    subset) and entry['annotations']:
                found = find_readable(data, name)
                if found is not None:
                    return found[0]
    sys.exit(f'{path} has no test video in {data}/videos '
             'that can be read')


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run all steps."""
    args = parse_args(argv)
    if args.data is None:
        data = Path('data/demo_actions')
        work = args.work_dir or Path('work_dirs/quickstart')
    else:
        data = args.data.resolve()
        work = args.work_dir or Path(f'work_dirs/quickstart_{data.name}')
    work.mkdir(parents=True, exist_ok=True)
    baseline, drop = BASELINE, BLOCK_DROP
    if args.data is None:
        step(1, 'Demonstration videos',
             [str(HERE / 'data/make_demo_data.py'),
              str(data)])
    else:
        print(f'\n=== 1/6 Videos: {data}', flush=True)
        from own_videos import write_configs
        baseline, drop = map(
            str, write_configs(data, work, BASELINE, BLOCK_DROP))
    from origin import set_aside_unless_same
    set_aside_unless_same(work, [baseline, drop], data / 'annotations.json')

    full = work / 'full'
    epochs = _epochs(baseline)
    weights = full / f'epoch_{epochs}.pth'
    step(2, 'Training the full detector', [
        str(HERE / 'train.py'), baseline, '--work-dir',
        str(full), '--resume', 'auto'
    ], weights.exists)
    compress = work / 'blockdrop'
    report = compress / 'blockdrop.json'
    step(3, 'Progressive block drop', [
        str(HERE / 'train.py'), drop, '--work-dir',
        str(compress), '--resume', 'auto', '--cfg-options',
        f'model.checkpoint={weights}'
    ], lambda: is_finished(report))
    record = json.loads(report.read_text())
    short = compress / record['rounds'][-1]['checkpoint']
    step(4, 'Testing the full detector', test(drop, weights, work / 'test'),
         lambda: is_newer(metrics_file(work / 'test'), weights))
    teacher = read_metrics(work / 'test')
    step(5, 'Testing the compressed detector',
         test(drop, short, work / 'test_short'),
         lambda: is_newer(metrics_file(work / 'test_short'), short))
    compressed = read_metrics(work / 'test_short')
    video = unseen_video(data)
    step(6, 'Localizing one unseen video', [
        'demo/localize.py',
        str(video), '--config', drop, '--checkpoint',
        str(short), '--teacher-checkpoint',
        str(weights), '--ann-file',
        str(data / 'annotations.json'), '--out-dir',
        str(work)
    ], lambda: is_newer(work / f'{video.stem}.png', short))
    text = results_table(record, teacher, compressed)
    (work / 'results.md').write_text(text + '\n')
    pictures = sorted([*compress.glob('*.png'), *work.glob('*.png')])
    print('\n' + text)
    print('\nTable:', work / 'results.md')
    print('Rounds:', compress / 'blockdrop.md')
    print('Pictures:', *pictures, sep='\n  ')


def _epochs(config: str) -> int:
    from mmengine.config import Config
    return Config.fromfile(config).train_cfg.max_epochs


if __name__ == '__main__':
    main()
