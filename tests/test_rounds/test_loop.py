"""A whole run of two rounds on the toy localizer."""
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from rounds_kit import (block_of, blocks_in, metric_of, read_record,
                        read_weights)

#: Entries of a finished round.
ENTRIES = {
    'round', 'state', 'criterion', 'higher_is_better', 'scores',
    'block_executions', 'dropped', 'blocks_left', 'metric_before',
    'metric_after', 'best_epoch', 'params', 'macs', 'latency_ms',
    'checkpoint', 'seconds'
}


def test_files_of_a_run(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        'blockdrop.json', 'blockdrop.md', 'blockdrop_scores.png',
        'blockdrop_tradeoff.png', 'round_1.pth', 'round_2.pth',
        'round_1_best.pth', 'round_2_best.pth', 'epoch_1.pth', 'epoch_4.pth'
    }
    assert not [name for name in names if name.endswith('.tmp')]


def test_record_of_a_run(finished):
    record = read_record(finished)
    assert record['version'] == 2 and record['kind'] == 'BlockStack'
    assert record['stack'] == 'backbone.blocks'
    assert record['depth'] == toy.DEPTH and record['start_dropped'] == []
    assert record['metric'] == 'tad/mAP'
    baseline = record['baseline']
    assert baseline['metric'] == baseline['metrics']['tad/mAP']
    left = list(range(toy.DEPTH))
    before = baseline
    for number, entry in enumerate(record['rounds'], 1):
        assert set(entry) >= ENTRIES
        assert entry['round'] == number and entry['state'] == 'aligned'
        assert entry['criterion'] == 'MetricScorer'
        assert sorted(map(int, entry['scores'])) == left
        assert len(set(entry['scores'].values())) > 1
        best = max(left, key=lambda i: (entry['scores'][str(i)], -i))
        assert entry['dropped'] == [best]
        left = [i for i in left if i != best]
        assert entry['blocks_left'] == left
        assert entry['params'] < before['params']
        assert entry['macs'] < before['macs']
        assert entry['latency_ms'] > 0
        assert entry['best_epoch'] in (1, 2)
        assert entry['checkpoint'] == f'round_{number}.pth'
        assert set(entry['seconds']) == {'score', 'align'}
        before = entry
    assert len(record['rounds']) == 2


def test_weights_of_every_round(finished, block_drop, tmp_path):
    record = read_record(finished)
    cfg = block_drop(tmp_path)
    plain = MODELS.build(toy.localizer()).state_dict()
    for entry in record['rounds']:
        state, meta = read_weights(finished / entry['checkpoint'])
        dropped = sorted(set(range(toy.DEPTH)) - set(entry['blocks_left']))
        assert set(state) == {k for k in plain if block_of(k) not in dropped}
        assert metric_of(state, cfg, dropped) == pytest.approx(
            entry['metric_after'], abs=1e-6)
        assert meta['blockdrop']['rounds'] == record['rounds'][:entry['round']]
        assert 'lora' not in meta['blockdrop']


def test_lora_while_aligning(finished):
    record = read_record(finished)
    for epoch, entry in enumerate(
        [r for r in record['rounds'] for _ in range(2)], 1):
        state, meta = read_weights(finished / f'epoch_{epoch}.pth')
        assert blocks_in(state) == entry['blocks_left']
        adapted = {block_of(k) for k in state if 'lora_B' in k}
        assert sorted(adapted) == entry['blocks_left']
        assert any(v.abs().max() > 0 for k, v in state.items()
                   if 'lora_B' in k)
        current = meta['blockdrop']['rounds'][-1]
        assert current['state'] == 'dropped'
        assert current['dropped'] == entry['dropped']
        assert meta['blockdrop']['lora'] == dict(rank=4)
        assert meta['epoch'] == epoch


def test_frozen_weights_stay_through_a_round(finished, trained):
    start = read_weights(trained)[0]
    state = read_weights(finished / 'epoch_1.pth')[0]
    for name, value in state.items():
        origin = start.get(name.replace('.base_layer', ''))
        if 'lora_' in name:
            continue
        trained_too = name.split('.')[0] != 'backbone' or any(
            part in name for part in ('norm', 'patch_embed'))
        trained_too &= 'fc_norm' not in name and 'pos_embed' not in name
        assert torch.equal(value, origin) != trained_too, name


def test_second_round_starts_from_the_best_epoch(finished):
    record = read_record(finished)
    merged = read_weights(finished / 'round_1.pth')[0]
    later = read_weights(finished / 'epoch_3.pth')[0]
    best = read_weights(finished / 'round_1_best.pth')
    assert best[1]['epoch'] == record['rounds'][0]['best_epoch']
    kept = [k for k in later if '.base_layer.' in k]
    assert kept
    for name in kept:
        assert torch.equal(later[name], merged[name.replace(
            '.base_layer', '')])
