"""Parameters, multiply-accumulates and latency."""
import runpy
from pathlib import Path

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.report import compare_latency, complexity, measure
from mmblockdrop.utils.meta import empty_weights

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/analysis_tools/complexity.py'


def localizer_cfg(dims=16, depth=3, heads=2, channels=16, arch=(1, 1, 1),
                  classes=3, window_size=32, img_size=32, neck=False):
    levels = 1 + arch[2]
    return dict(
        type='mmblockdrop.ActionFormer',
        backbone=dict(
            type='mmblockdrop.LoRAViT',
            img_size=img_size,
            embed_dims=dims,
            depth=depth,
            num_heads=heads,
            mlp_ratio=4,
            qkv_bias=True,
            num_frames=16),
        clip_frames=16,
        window_size=window_size,
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=dims,
            out_channels=channels,
            arch=arch,
            num_heads=4,
            path_drop=0.1),
        neck=dict(
            type='mmblockdrop.FPNIdentity',
            in_channels=channels,
            out_channels=channels,
            num_levels=levels) if neck else None,
        head=dict(
            type='mmblockdrop.ActionFormerHead',
            num_classes=classes,
            in_channels=channels,
            strides=[2**i for i in range(levels)]))


class TinyNet(nn.Module):
    """Two convolutions with a product between them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 3, padding=1)
        self.second = nn.Sequential(nn.Conv1d(8, 2, 1), nn.LayerNorm(10))

    def forward(self, x):
        x = self.first(x)
        x = x @ x.transpose(1, 2) @ x
        return self.second(x)


def test_counts_by_part_and_outside():
    parts = complexity(TinyNet(), torch.zeros(1, 4, 10))
    assert parts['first'] == (4 * 8 * 3 + 8, 10 * 8 * 4 * 3, 10 * 8 * 4 * 3)
    assert parts['second'] == (8 * 2 + 2 + 20, 10 * 16, 10 * 16 + 4 * 20)
    assert parts['other'] == (0, 2 * 8 * 8 * 10, 0)
    assert parts['total'].macs == sum(
        p.macs for name, p in parts.items() if name != 'total')


def test_the_model_stays_as_it_was():
    model = TinyNet().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measured = measure(model, torch.zeros(1, 4, 10), repeats=2)
    assert model.training and measured['latency_ms'] > 0
    assert not any(m._forward_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) and not value.is_meta
    assert set(measured) == {'params', 'macs', 'paper_macs', 'latency_ms',
                             'latency_ratio', 'latency_spread'}
    assert measured['latency_ratio'] == 1.


class Noted(nn.Module):
    """Notes each of its passes."""

    def __init__(self, name, passes):
        super().__init__()
        self.name, self.passes = name, passes
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        if x.device.type != 'meta':
            self.passes.append(self.name)
        return x @ self.weight


def test_two_models_are_timed_in_turn():
    passes = []
    full, short = Noted('full', passes).train(), Noted('short', passes)
    found = compare_latency(
        short.eval(), full, torch.ones(2, 3), pairs=4, min_seconds=0)
    assert passes == ['full', 'short'] * 5  # one pair to warm up
    assert full.training and not short.training
    low, high = found['latency_spread']
    assert 0 < low <= found['latency_ratio'] <= high
    assert found['latency_ms'] > 0
    passes.clear()
    compare_latency(short, full, torch.ones(2, 3), max_seconds=0)
    assert passes == ['full', 'short']
    assert {*measure(short, torch.ones(2, 3), reference=full)} == {
        'params', 'macs', 'paper_macs', 'latency_ms', 'latency_ratio',
        'latency_spread'}


def test_every_block_costs_the_same_and_is_saved_when_dropped():
    model = MODELS.build(localizer_cfg())
    inputs = torch.zeros(1, 1, 3, 32, 32, 32)
    costs = [complexity(model, inputs)]
    stack = BlockStack(model, 'backbone.blocks')
    for index in (1, 0):
        stack.remove(index)
        costs.append(complexity(model, inputs))
    backbone = [c['backbone'] for c in costs]
    for a, b, c in zip(*backbone):
        assert a > b > c and a - b == b - c
    assert len({c['head'] for c in costs}) == 1


def test_weights_are_not_needed():
    with empty_weights():
        model = MODELS.build(localizer_cfg())
    assert all(p.is_meta for p in model.parameters())
    inputs = torch.zeros(1, 1, 3, 32, 32, 32, device='meta')
    real = MODELS.build(localizer_cfg())
    assert complexity(model, inputs) == complexity(real, inputs)
    assert not next(nn.Linear(2, 2).parameters()).is_meta


def test_tool_prints_a_line_for_each_drop(tmp_path, capsys):
    main = runpy.run_path(str(TOOL))['main']
    config = ROOT / 'configs/_base_/models/actionformer_vit-w96-d8.py'
    out = tmp_path / 'table.md'
    arguments = [str(config), '--shape', '32', '48', '48']
    assert main([*arguments, '--drop', '2', '--out', str(out)]) == 0
    lines = [x for x in out.read_text().splitlines() if x.startswith('|')]
    cells = [[c.strip() for c in line.split('|')[1:-1]] for line in lines]
    assert [row[1] for row in cells[2:]] == ['8', '7', '6']
    assert [row[0] for row in cells[2:]] == ['-', '7', '7 6']
    gray = ['--cfg-options', 'model.backbone.in_channels=1']
    assert main([*arguments, *gray]) == 0
    assert '1 x 1 x 1 x 32 x 48 x 48' in capsys.readouterr().out
    assert main([*arguments, '--drop-blocks', '9']) == 1
    assert main([str(config)]) == 1
    assert 'give --shape' in capsys.readouterr().err


#: Full-size models of the published comparison, by their name in the file.
WIDTHS = {
    'VideoMAE-S': (384, 12, 6),
    'VideoMAE-B': (768, 12, 12),
    'VideoMAE-L': (1024, 24, 16),
    'VideoMAE-H': (1280, 32, 16)
}


@pytest.mark.slow
@pytest.mark.parity
def test_parity_with_the_published_counts(macs_table):
    assert macs_table
    for name, rows in macs_table.items():
        dims, depth, heads = WIDTHS[name.split()[0]]
        with empty_weights():
            model = MODELS.build(
                localizer_cfg(dims, depth, heads, 512, (2, 2, 5), 20, 768,
                              224, neck=True))
        stack = BlockStack(model, 'backbone.blocks')
        inputs = torch.empty(1, 1, 3, 768, 160, 160, device='meta')
        for row in rows:
            while depth - len(stack.remaining) < row['blocks_dropped']:
                stack.remove(stack.remaining[-1])
            total = complexity(model, inputs)['total']
            expected = row['conventions']
            assert total.paper / 1e9 == pytest.approx(
                expected['thop_qkv_as_module']['gmacs'], rel=1e-6)
            if row.get('paper_gmacs') is not None:
                assert total.paper / 1e9 == pytest.approx(
                    row['paper_gmacs'], rel=5e-3)
            assert total.macs / 1e9 == pytest.approx(
                expected['all_multiply_accumulates_merged']['gmacs'],
                rel=1e-6)
            assert total.params / 1e6 == pytest.approx(
                row['params_million']['merged'], rel=1e-6)
