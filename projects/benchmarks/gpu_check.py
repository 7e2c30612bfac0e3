"""Everything that needs a GPU, in one call of a few minutes.

    python projects/benchmarks/gpu_check.py OUT_FOLDER [--seconds 450] [--toy]

Each check runs in a process of its own with a time limit, so that one that
fails or hangs leaves the others; ``OUT_FOLDER/gpu_check.json`` holds what is
known after every check, ``OUT_FOLDER/gpu_check.md`` the page.

    python projects/benchmarks/gpu_check.py --page OUT_FOLDER/gpu_check.json

puts it into the benchmarks page. ``--toy`` is for trying the program without
a GPU: small models, few repeats.
"""
import argparse
import copy
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from mmblockdrop.compression import BlockStack, LinearRepair
from mmblockdrop.export import write_onnx
from mmblockdrop.report import complexity, markdown_table
from mmblockdrop.utils.io import whole_file

import benchmark_training
import torch
from benchmark_inference import PAPER
from benchmark_training import STACK
from common import (PAGE, ROOT, alternate, conditions, detector, median_ratio,
                    noise_windows, quiet, write_section)
from torch import nn

Rows = List[Dict[str, str]]
PRECISIONS = dict(fp32=None, bf16=torch.bfloat16, fp16=torch.float16)


class Sizes:
    """What the checks run on.

    Args:
        toy: Small enough for a CPU.
    """

    def __init__(self, toy: bool) -> None:
        self.toy = toy
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.frames, self.pixels = (32, 32) if toy else (768, 160)
        self.width, self.depth = (64, 6) if toy else (384, 12)
        self.channels, self.levels = (64, 3) if toy else (512, 6)
        self.repeats = 3 if toy else 20

    def build(self, **encoder: Any) -> nn.Module:
        """The detector at random weights, on the device."""
        from mmblockdrop.registry import MODELS
        torch.manual_seed(0)
        cfg = detector(self.frames, self.pixels, self.width, self.depth,
                       self.channels, self.levels, **encoder)
        return MODELS.build(cfg).eval().to(self.device)

    def window(self) -> torch.Tensor:
        """Frames of one window, [1, 1, 3, frames, pixels, pixels]."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(
            1, 1, 3, self.frames, self.pixels, self.pixels,
            generator=generator).to(self.device)

    def autocast(self, precision: str) -> torch.autocast:
        """Autocast to a precision; none for fp32."""
        dtype = PRECISIONS[precision]
        return torch.autocast(
            self.device, dtype or torch.bfloat16, enabled=dtype is not None)


def without(model: nn.Module, count: int) -> nn.Module:
    """A copy of a localizer that has lost its last blocks."""
    model = copy.deepcopy(model)
    stack = BlockStack(model, STACK)
    for index in stack.remaining[len(stack.remaining) - count:]:
        stack.remove(index)
    return model


def latency(sizes: Sizes) -> Rows:
    """Latency of a window with 0 to 4 dropped blocks in three precisions."""
    full, window = sizes.build(), sizes.window()
    models = {k: without(full, k) for k in range(5)}
    macs = {k: complexity(m, window)['total'].macs for k, m in models.items()}
    rows = []
    for name in PRECISIONS:
        with torch.inference_mode(), sizes.autocast(name):
            times = alternate(
                {k: lambda m=m: m(window) for k, m in models.items()},
                sizes.repeats, 3, torch.device(sizes.device))
        for k in models:
            ratio = median_ratio(times[k], times[0])
            rows.append({
                'precision': name,
                'dropped': str(k),
                'latency (ms)': f'{1e3 * statistics.median(times[k]):.2f}',
                'ratio': f'{ratio:.3f}',
                'ratio of MACs': f'{macs[k] / macs[0]:.3f}',
                'paper, ratio': f'{PAPER[k] / PAPER[0]:.3f}',
                'paper (ms)': f'{PAPER[k]}'
            })
    return rows


def agreement(sizes: Sizes) -> Rows:
    """Outputs on the device against those of the CPU in fp32."""
    full, clip = sizes.build().backbone, sizes.window()[:, 0, :, :16]
    rows = []
    with torch.inference_mode():
        wanted = copy.deepcopy(full).cpu()(clip.cpu())
        for name in PRECISIONS:
            with sizes.autocast(name):
                gap = full(clip).float().cpu() - wanted
            rows.append({
                'precision': name,
                'largest difference of a feature':
                f'{gap.abs().max().item():.2e}',
                'spread of the features': f'{wanted.std().item():.3f}'
            })
    return rows


def training(sizes: Sizes) -> Rows:
    """A step of alignment, a block dropped, with a scaler in fp16."""
    rows = []
    cases = [(p, cp) for cp in (True, False) for p in PRECISIONS]
    for precision, with_cp in cases:
        row = {
            'precision': precision,
            'recomputed': 'yes' if with_cp else 'no'
        }
        try:
            row.update(_step(sizes, precision, with_cp))
        except torch.OutOfMemoryError:
            row['loss'] = 'out of memory'
        rows.append(row)
        if sizes.device == 'cuda':
            torch.cuda.empty_cache()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key, '') for key in columns} for row in rows]


def _step(sizes: Sizes, precision: str, with_cp: bool) -> Dict[str, str]:
    """Seconds, memory and loss of a step."""
    args = argparse.Namespace(
        size='tiny' if sizes.toy else 'S', pixels=sizes.pixels, dropped=1,
        device=sizes.device)
    model = benchmark_training.build(args, sizes.frames, 'lora', with_cp)
    batch = noise_windows(
        1, sizes.frames, sizes.pixels,
        [[1., sizes.frames / 4], [sizes.frames / 2, sizes.frames * .9]],
        sizes.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    scaler = torch.amp.GradScaler(sizes.device, enabled=precision == 'fp16')
    losses: List[float] = []
    stepped: List[bool] = []

    def step() -> None:
        with sizes.autocast(precision):
            found = model(**batch, mode='loss')
            total = sum(v for k, v in found.items() if 'loss' in k)
        scale = scaler.get_scale()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(total.detach()))
        stepped.append(scaler.get_scale() >= scale)

    on_gpu = sizes.device == 'cuda'
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = alternate(
        dict(step=step), 3 if sizes.toy else 5, 2, torch.device(sizes.device))
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0
    return {
        'step (ms)': f'{1e3 * statistics.median(times["step"]):.0f}',
        'peak memory (MiB)': f'{peak:.0f}' if on_gpu else '',
        'optimizer steps': f'{sum(stepped)} of {len(stepped)}',
        'loss': f'{losses[0]:.4f} -> {losses[-1]:.4f}'
    }


def compiled(sizes: Sizes) -> Rows:
    """The encoder under torch.compile, full and with four blocks fewer."""
    full, window = sizes.build(), sizes.window()
    rows = []
    for dropped in (0, 4):
        plain = without(full, dropped)
        fast = copy.deepcopy(plain)
        fast.backbone.compile()
        for name in ('fp32', 'bf16'):
            with torch.inference_mode(), sizes.autocast(name):
                began = time.perf_counter()
                gap = (fast.extract_feat(window[:, 0])
                       - plain.extract_feat(window[:, 0])).abs().max().item()
                first = time.perf_counter() - began
                times = alternate(
                    dict(plain=lambda: plain(window),
                         fast=lambda: fast(window)),
                    sizes.repeats, 2, torch.device(sizes.device))
            rows.append({
                'dropped': str(dropped),
                'precision': name,
                'plain (ms)': f'{1e3 * statistics.median(times["plain"]):.2f}',
                'compiled (ms)':
                f'{1e3 * statistics.median(times["fast"]):.2f}',
                'ratio': f'{median_ratio(times["fast"], times["plain"]):.3f}',
                'first call (s)': f'{first:.1f}',
                'largest difference': f'{gap:.1e}'
            })
    return rows


def repair(sizes: Sizes) -> Rows:
    """Repair of a dropped block at full width, and of one in the middle."""
    teacher = sizes.build()
    batches = [sizes.window() for _ in range(2 if sizes.toy else 4)]
    rows = []

    def run(model: nn.Module, batch: Any) -> None:
        model(batch)

    for block in (1, sizes.depth // 2):
        student = copy.deepcopy(teacher)
        stack = BlockStack(student, STACK)
        stack.remove(block)
        began = time.perf_counter()
        entries = LinearRepair(refit=False)(student, teacher, stack, [block],
                                            batches, run)
        if sizes.device == 'cuda':
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        rows += [{
            'dropped': str(block),
            'fitted': entry['layer'],
            'tokens': str(entry.get('tokens', '')),
            'error before': f'{entry.get("error_before", float("nan")):.4f}',
            'error after': f'{entry.get("error_after", float("nan")):.4f}',
            'seconds': f'{seconds:.2f}'
        } for entry in entries]
    return rows


def onnx(sizes: Sizes) -> Rows:
    """The encoder as ONNX, on CUDA where onnxruntime has it."""
    if importlib.util.find_spec('onnxruntime') is None:
        return [{'result': 'onnxruntime is not installed'}]
    import onnxruntime
    providers = onnxruntime.get_available_providers()
    model = sizes.build().cpu()
    window = sizes.window()[:, :, :, :64].cpu()
    with tempfile.TemporaryDirectory() as folder:
        found = write_onnx(model, window, Path(folder), 'encoder')
        rows = []
        for provider in ('CUDAExecutionProvider', 'CPUExecutionProvider'):
            if provider not in providers:
                rows.append({'provider': provider, 'ms': 'not there'})
                continue
            session = onnxruntime.InferenceSession(
                str(Path(folder) / found['file']), providers=[provider])
            feed = {
                session.get_inputs()[0].name: window[:, 0, :, :16].numpy()
            }
            times = alternate(
                dict(run=lambda: session.run(None, feed)),
                3 if provider.startswith('CPU') else sizes.repeats)
            rows.append({
                'provider': session.get_providers()[0],
                'ms': f'{1e3 * statistics.median(times["run"]):.2f}'
            })
    return rows


def whole_run(sizes: Sizes) -> Rows:
    """Train, drop with repair and alignment, and test, by the programs."""
    baseline = 'configs/demo_actions/actionformer_vit-w64-d8_8e_demo-' \
        'actions.py'
    rounds = 'configs/demo_actions/blockdrop_vit-w64-d8_2x1e_demo-actions.py'
    launch = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=1'
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / 'data'
        options = [*_placed(baseline, data, folder), 'train_cfg.max_epochs=2']
        full = folder / 'full/epoch_2.pth'
        steps = {
            'data': [
                sys.executable, 'tools/data/make_demo_data.py',
                str(data), '--videos', '8', '4', '4'
            ],
            'train': [
                *launch, 'tools/train.py', baseline, '--launcher', 'pytorch',
                '--work-dir', f'{folder}/full', '--cfg-options', *options
            ],
            'one round, repaired and aligned': [
                *launch, 'tools/train.py', rounds, '--launcher', 'pytorch',
                *['--amp'] * (sizes.device == 'cuda'),
                '--work-dir', f'{folder}/short', '--cfg-options',
                *_placed(rounds, data, folder), f'model.checkpoint={full}',
                'train_cfg.drops=1',
                'train_cfg.repair.type=mmblockdrop.LinearRepair'
            ],
            'test': [
                sys.executable, 'tools/test.py', rounds,
                f'{folder}/short/round_1.pth', '--work-dir',
                f'{folder}/test', '--cfg-options',
                *_placed(rounds, data, folder)
            ]
        }
        rows = []
        for step, command in steps.items():
            began = time.perf_counter()
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True)
            rows.append({
                'step': step,
                'status': str(done.returncode),
                'seconds': f'{time.perf_counter() - began:.1f}'
            })
            if done.returncode:
                print(done.stdout[-3000:], done.stderr[-6000:])
                rows[-1]['status'] += f': {_last_error(done.stderr)}'
                break
    return rows


def _last_error(text: str) -> str:
    """The last line of a program's output that names an error."""
    lines = [x for x in text.splitlines() if 'Error' in x and ': ' in x]
    return (lines or text.splitlines() or [''])[-1].replace('|', '/')[:200]


def _placed(config: str, data: Path, folder: Path) -> List[str]:
    """Options that point the paths of a config to other folders."""
    from mmengine.config import Config
    cfg = Config.fromfile(str(ROOT / config))
    old = str(cfg.data_root), str(cfg.cache_dir)
    new = str(data), str(folder / 'cache')
    found: List[str] = []

    def visit(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(inner, f'{path}.{key}' if path else key)
        elif isinstance(value, (list, tuple)):
            for place, inner in enumerate(value):
                visit(inner, f'{path}.{place}')
        elif value in old:
            found.append(f'{path}={new[old.index(value)]}')

    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        visit(cfg[key], key)
    if 'score_dataloader' in cfg.train_cfg:
        visit(cfg.train_cfg.score_dataloader, 'train_cfg.score_dataloader')
    return found


#: Name to heading, function and seconds it may take.
CHECKS: Dict[str, Any] = {
    'latency': ('Latency of a window', latency, 120),
    'agreement': ('Features against those of the CPU', agreement, 60),
    'training': ('A step of alignment', training, 120),
    'repair': ('Repair of a dropped block', repair, 90),
    'whole_run': ('A whole run by the programs (nccl, one process)',
                  whole_run, 150),
    'compiled': ('torch.compile', compiled, 150),
    'onnx': ('ONNX', onnx, 90),
}


def page(results: Dict[str, Any]) -> str:
    """Markdown of all checks.

    Args:
        results: What is in ``gpu_check.json``.

    Returns:
        A section for the benchmarks page.
    """
    sizes = results['sizes']
    parts = [
        '## On a GPU\n\nWritten by `gpu_check.py`. VideoMAE-S with '
        f'ActionFormer, width {sizes["width"]}, {sizes["depth"]} blocks, '
        f'random weights, one window of {sizes["frames"]} frames of '
        f'{sizes["pixels"]} x {sizes["pixels"]} pixels. What is compared was '
        'timed in turns.'
    ]
    for name, (heading, _, _) in CHECKS.items():
        found = results['checks'].get(name)
        if found is None:
            continue
        body = markdown_table(found['rows']) if 'rows' in found else (
            f'Failed: `{found["failed"]}`')
        parts.append(f'### {heading}\n\n{body}')
    return '\n\n'.join([*parts, results['conditions']])


def in_own_process(name: str, toy: bool, limit: float) -> Dict[str, Any]:
    """Run a check in a process of its own.

    Args:
        name: Key of ``CHECKS``.
        toy: Small sizes.
        limit: Seconds.

    Returns:
        ``rows``, or ``failed`` with the reason; and ``seconds``.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / 'rows.json'
        command = [
            sys.executable, '-W', 'ignore', __file__, folder, '--check', name
        ] + ['--toy'] * toy
        try:
            code: Any = subprocess.run(command, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            code = f'not done within {limit:.0f} s'
        found = json.loads(target.read_text()) if target.exists() else dict(
            failed=f'exit status {code}')
    return dict(found, seconds=time.perf_counter() - began)


def run_all(args: argparse.Namespace) -> int:
    """Run the checks one after the other until the time is up."""
    began = time.perf_counter()
    sizes = Sizes(args.toy)
    results: Dict[str, Any] = dict(
        sizes={k: v for k, v in vars(sizes).items()},
        conditions=conditions(),
        checks={})
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or CHECKS:
        rest = args.seconds - (time.perf_counter() - began)
        if rest < 15:
            results['checks'][name] = dict(failed='there was no time left')
        else:
            limit = CHECKS[name][2] * (4 if args.toy else 1)
            results['checks'][name] = in_own_process(name, args.toy,
                                                     min(rest, limit))
        with whole_file(args.out / 'gpu_check.json') as partial:
            partial.write_text(json.dumps(results, indent=1))
        with whole_file(args.out / 'gpu_check.md') as partial:
            partial.write_text(page(results) + '\n')
    print(page(results))
    return int(any('failed' in c for c in results['checks'].values()))


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, nargs='?',
                        help='folder that the results are written to')
    parser.add_argument('--seconds', type=float, default=450,
                        help='time for all checks')
    parser.add_argument('--toy', action='store_true',
                        help='small sizes, for a CPU')
    parser.add_argument('--only', nargs='+', choices=CHECKS,
                        help='checks to run; all if left out')
    parser.add_argument('--check', choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument('--page', type=Path, metavar='gpu_check.json',
                        help='put these results into the benchmarks page')
    args = parser.parse_args(argv)
    if (args.out is None) == (args.page is None):
        parser.error('expected OUT_FOLDER, or --page with results')
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the checks, one of them, or write the page."""
    args = parse_args(argv)
    quiet()
    if args.page:
        write_section(PAGE, 'gpu', page(json.loads(args.page.read_text())))
        return 0
    if args.check is None:
        return run_all(args)
    check: Callable[[Sizes], Rows] = CHECKS[args.check][1]
    try:
        found: Dict[str, Any] = dict(rows=check(Sizes(args.toy)))
    except Exception as error:  # the reason goes into the results
        found = dict(failed=f'{type(error).__name__}: {error}'[:300])
    (args.out / 'rows.json').write_text(json.dumps(found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
