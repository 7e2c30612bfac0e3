"""Record the detector and the selection at sizes that fit into a clone.

    python projects/recording/make_small_golden.py PUBLISHED GOLDEN OUT

PUBLISHED is a checkout of nanxiaolu/Progressive_Block_Drop-TAD (commit
74bce47), GOLDEN the full set, OUT a folder. The two large files of the full
set are recorded anew from the published code, at other sizes and with other
seeds; all others are copied. Files above 16 kB are compressed with xz. First
the recorder must repeat the numbers of the full set from its inputs.
"""
import argparse
import json
import lzma
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import torch
from mmengine.logging import MMLogger

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import mmblockdrop  # applies its patches

import detector
import published
import selection
import small

DETECTOR, CONFIG, SELECTION = ('pbd_detector.pt', 'pbd_detector_config.json',
                               'selection.pt')
SEED = 3
#: mAP of the few detections of the small clips moves more with the last digit
#: of a score than that of the full set.
MODEL_TOLERANCE = 1e-2


def differences(ours: Any, theirs: Any,
                path: str = '') -> Iterator[Tuple[float, str]]:
    """Largest difference of each pair of values, with its place.

    Args:
        ours: Recorded now.
        theirs: Recorded before.
        path: Where in the file.

    Yields:
        Difference relative to the largest value. Numbers below a millionth of
        the largest beside them are rounding and left out (gradients of biases
        that a softmax cancels).
    """
    if isinstance(ours, dict):
        floor = 1e-6 * max([
            abs(v) for v in theirs.values() if isinstance(v, float)
        ] + [0])
        for key in set(ours) & set(theirs):
            if not isinstance(theirs[key], float) or abs(theirs[key]) > floor:
                yield from differences(ours[key], theirs[key],
                                       f'{path}/{key}')
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), path
        for i, pair in enumerate(zip(ours, theirs)):
            yield from differences(*pair, f'{path}/{i}')
    elif isinstance(ours, torch.Tensor):
        a, b = ours.double(), theirs.double()
        assert a.shape == b.shape, path
        if a.numel():
            yield float((a - b).abs().max() / b.abs().max().clamp(1e-9)), path
    elif isinstance(ours, (int, float)):
        yield abs(ours - theirs) / max(abs(theirs), 1e-9), path
    else:
        assert ours == theirs, path


def record(configs: Dict[str, Any], given: Dict[str, Any],
           variants: list) -> Dict[str, Any]:
    """The whole file of the first detector."""
    weights, post = configs['loss_weight'], configs['post_processing']
    out = detector.record_detector(configs, given, variants, weights, post)
    out.update(detector.record_baselines(configs, given, post))
    out['dynamic_teacher'] = detector.record_dynamic(
        configs, given, [2], [1, 2], weights)
    return out


def record_anet(configs: Dict[str, Any], given: Dict[str, Any],
                variants: list, weights: Dict[str, float]) -> Dict[str, Any]:
    """The part of the detector for whole videos."""
    return detector.record_detector(configs['anet_like'], given, variants,
                                    weights,
                                    configs['anet_like']['post_processing'])


def verify(golden: Path) -> None:
    """Repeat the full set from its inputs.

    Args:
        golden: The full set.

    Raises:
        ValueError: A number differs by more than rounding.
    """
    configs = json.loads((golden / CONFIG).read_text())
    theirs = torch.load(golden / DETECTOR, weights_only=True)
    steps = torch.load(golden / SELECTION, weights_only=True)
    drops = [v['drop_idx'] for v in theirs['student'].values()]
    ours = record(configs, theirs, drops)
    ours['anet_like'] = record_anet(
        configs, theirs['anet_like'],
        [v['drop_idx'] for v in theirs['anet_like']['student'].values()],
        configs['loss_weight'])
    ours['selection'] = record_rounds(
        configs, theirs['checkpoint']['state_dict'], steps,
        [r['drop_idx'] for r in steps['rounds'].values()])
    found = sorted(differences(ours, dict(theirs, selection=steps['rounds'])))
    print(f'{len(found)} entries of {golden} repeated; the largest '
          f'differences: {found[-3:]}')
    if found[-1][0] > 2e-5:
        raise ValueError(f'the recorder does not repeat {found[-1][1]}')


def record_rounds(configs: Dict[str, Any], state: Dict[str, torch.Tensor],
                  given: Dict[str, Any], drops: list) -> Dict[str, Any]:
    """Every selection step of a file."""
    post = configs['post_processing']
    return {
        '_'.join(map(str, dropped)) or 'none': selection.record_round(
            configs, state, given, dropped, post)
        for dropped in drops
    }


def make(golden: Path) -> Dict[str, Any]:
    """Record the small set.

    Args:
        golden: The full set, for what its configs have in common.

    Returns:
        Content of the three files by name.
    """
    configs = json.loads((golden / CONFIG).read_text())
    for part, size in ((configs, small.THUMOS), (configs['anet_like'],
                                                 small.ANET)):
        for name in ('student', 'teacher', 'baseline_cp', 'baseline_lora'):
            if name in part:
                part[name] = small.shrink(part[name], size)
    torch.manual_seed(SEED)
    whole = record(configs, small.thumos_like(configs['student']),
                   [[], [2], [0, 3]])
    whole['anet_like'] = record_anet(
        configs, small.anet_like(configs['anet_like']['student']), [[], [1]],
        configs['loss_weight'])
    post, state = configs['post_processing'], whole['checkpoint']['state_dict']
    steps = small.scoring_clips(whole['classes'])
    model = published.build(configs['student'])
    detector.load(model, state)
    selection.annotate(model, steps, post, per_video=5)
    steps['rounds'] = record_rounds(configs, state, steps, [[], [2]])
    steps['tie_order_spread'] = selection.tie_spread(steps)
    steps['model_tolerance'] = MODEL_TOLERANCE
    for step in steps['rounds'].values():
        scores = sorted(m['mAP@0.5'] for m in step['metrics'])
        print(f'dropped {step["drop_idx"]}: chose {step["chosen"]} of mAP@0.5 '
              f'{scores}')
    return {DETECTOR: whole, CONFIG: configs, SELECTION: steps}


def main() -> None:
    """Verify, record, copy and compress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('published')
    parser.add_argument('golden', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--skip-verify', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    MMLogger.get_instance('mmengine', log_level='ERROR')
    published.import_published(args.published)
    if not args.skip_verify:
        verify(args.golden)
    files = make(args.golden)
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.golden.iterdir():
        if path.name not in files and path.suffix != '.md':
            shutil.copyfile(path, args.out / path.name)
    (args.out / CONFIG).write_text(json.dumps(files.pop(CONFIG), indent=1))
    for name, content in files.items():
        torch.save(content, args.out / name)
    for path in args.out.iterdir():
        if path.stat().st_size > 2**14 and path.suffix not in ('.xz', '.md'):
            packed = lzma.compress(path.read_bytes(), preset=9)
            path.with_name(path.name + '.xz').write_bytes(packed)
            path.unlink()
    total = sum(path.stat().st_size for path in args.out.iterdir())
    print(f'{total} bytes in {args.out}')


if __name__ == '__main__':
    main()
