"""Halves of blocks through rounds, record, resume, report and export."""
import json
from pathlib import Path

from mmblockdrop.apis import init_localizer
from mmblockdrop.compression import HalfBlocks
from mmblockdrop.export import example_inputs, network
from mmblockdrop.utils.config import localizer_config

import pytest
import torch
import toy
from mmengine.config import Config
from rounds_kit import count_only, read_record, read_weights, sharpen, train
from test_compressed import SCRIPT, start
from test_interrupted import KIT, assert_ended_alike
from test_resume import interrupted, same_weights, timeless

HALVES = [
    dict(
        type='mmblockdrop.BlockDropHook',
        stack='backbone.blocks',
        structure='mmblockdrop.HalfBlocks')
]
#: Ids of the toy localizer; two halves of a block would be the block.
IDS = [
    f'backbone.blocks.{i}.{half}' for i in range(toy.DEPTH)
    for half in ('attn', 'mlp')
]


PROTECTED = [IDS[1], IDS[2], IDS[5], IDS[6]]


@pytest.fixture(scope='module')
def halved(block_drop, tmp_path_factory) -> Path:
    """Work directory of a finished run of two rounds, a half in each."""
    cfg = block_drop(
        tmp_path_factory.mktemp('halved'),
        custom_hooks=HALVES,
        protect=PROTECTED)
    train(cfg)
    return Path(cfg.work_dir)


@pytest.fixture
def uncounted(monkeypatch):
    """The run counts parameters only."""
    monkeypatch.setattr('mmblockdrop.rounds.evaluator.measure', count_only)


def test_record_and_checkpoint_of_halves(halved):
    record = read_record(halved)
    assert record['version'] == 2 and record['kind'] == 'HalfBlocks'
    assert record['ids'] == IDS and record['depth'] == 2 * toy.DEPTH
    assert record['baseline']['blocks_left'] == IDS
    first, second = record['rounds']
    candidates = [i for i in IDS if i not in PROTECTED]
    assert list(first['scores']) == candidates
    gone = first['dropped'] + second['dropped']
    assert len(set(gone)) == 2 and set(gone) < set(candidates)
    assert list(second['scores']) == [i for i in candidates if i != gone[0]]
    assert second['blocks_left'] == [i for i in IDS if i not in gone]
    costs = [record['baseline'], first, second]
    for key in ('macs', 'params'):
        assert costs[0][key] > costs[1][key] > costs[2][key]
    state, meta = read_weights(halved / 'round_2.pth')
    assert meta['blockdrop']['kind'] == 'HalfBlocks'
    assert not any(name.startswith(f'{part}.') for name in state
                   for part in gone)
    assert not any('lora' in name for name in state)


def test_scores_are_those_of_the_localizer_without_the_half(
        halved, trained, block_drop, tmp_path):
    """Each candidate by itself, without sharing what they have in common."""
    cfg = block_drop(
        tmp_path,
        custom_hooks=HALVES,
        drops=1,
        epochs_per_round=0,
        protect=PROTECTED,
        scorer=dict(type='mmblockdrop.MetricScorer', share_prefix=False))
    train(cfg)
    alone, shared = (
        read_record(folder)['rounds'][0] for folder in (tmp_path, halved))
    assert alone['scores'] == shared['scores']
    assert alone['block_executions'] > shared['block_executions']


@pytest.mark.parametrize('scorer', [
    dict(type='mmblockdrop.LossScorer', with_alignments=True),
    dict(type='mmblockdrop.BlockChangeScorer'),
    dict(type='mmblockdrop.RandomScorer'),
    dict(type='mmblockdrop.RacingScorer'),
])
def test_every_rule_scores_halves(uncounted, block_drop, tmp_path, scorer):
    cfg = block_drop(
        tmp_path,
        custom_hooks=HALVES,
        drops=1,
        epochs_per_round=0,
        scorer=scorer)
    train(cfg)
    entry, = read_record(tmp_path)['rounds']
    assert set(entry['scores']) <= set(IDS)
    assert entry['dropped'][0] in entry['scores']


def test_protected_halves_stay(uncounted, block_drop, tmp_path):
    cfg = block_drop(
        tmp_path,
        custom_hooks=[dict(HALVES[0], start_dropped=[IDS[3]])],
        drops=1,
        epochs_per_round=0,
        protect=[IDS[0]])
    train(cfg)
    record = read_record(tmp_path)
    assert record['start_dropped'] == [IDS[3]]
    entry, = record['rounds']
    assert not {IDS[0], IDS[3]} & set(entry['scores'])


@pytest.mark.parametrize('change, key', [
    (dict(protect=['backbone.blocks.9.mlp']), 'train_cfg.protect'),
    (dict(protect=[1]), 'train_cfg.protect'),
    (dict(custom_hooks=[dict(HALVES[0], structure='mmblockdrop.HalfBlock')]),
     'BlockDropHook.structure'),
])
def test_wrong_settings_are_named(block_drop, tmp_path, change, key):
    with pytest.raises(ValueError, match=key):
        train(block_drop(tmp_path, **{'custom_hooks': HALVES, **change}))


def test_resume_is_as_if_never_interrupted(halved, block_drop, tmp_path):
    work_dir = interrupted(halved, tmp_path, 'epoch_3.pth')
    train(
        block_drop(
            work_dir, resume=True, custom_hooks=HALVES, protect=PROTECTED))
    assert timeless(read_record(work_dir)) == timeless(read_record(halved))
    for name in ('round_2.pth', 'epoch_4.pth'):
        same_weights(halved / name, work_dir / name, 'state_dict')


def test_scores_of_halves_are_not_computed_again(halved, uncounted,
                                                 block_drop, tmp_path):
    record = read_record(halved)
    entry = record['rounds'][0]
    for key in ('dropped', 'blocks_left', 'metric_after', 'checkpoint',
                'last_epoch'):
        entry.pop(key)
    entry['state'] = 'scored'
    marked = IDS[4]
    entry['scores'][marked] = 2.
    record['rounds'] = [entry]
    work_dir = interrupted(halved, tmp_path, 'epoch_0.pth', record)
    train(
        block_drop(
            work_dir,
            resume=True,
            custom_hooks=HALVES,
            protect=PROTECTED,
            drops=1,
            epochs_per_round=0))
    assert read_record(work_dir)['rounds'][0]['dropped'] == [marked]


def test_report_names_the_halves(halved):
    record = read_record(halved)
    text = (halved / 'blockdrop.md').read_text()
    for entry in record['rounds']:
        part, = entry['dropped']
        assert part.removeprefix('backbone.blocks.') in text
    for name in ('blockdrop_scores.png', 'blockdrop_tradeoff.png'):
        assert (halved / name).stat().st_size > 1000


def test_lora_goes_where_a_target_remains(uncounted, block_drop, tmp_path):
    """Here the attention of no block, and the targets are in attention."""
    cfg = block_drop(
        tmp_path,
        custom_hooks=[dict(HALVES[0], start_dropped=IDS[::2])],
        drops=1,
        epochs_per_round=1)
    train(cfg)
    entry, = read_record(tmp_path)['rounds']
    assert entry['state'] == 'aligned' and entry['dropped'][0] in IDS[1::2]


def test_block_without_halves_is_gone(uncounted, block_drop, tmp_path):
    cfg = block_drop(
        tmp_path,
        custom_hooks=[dict(HALVES[0], start_dropped=IDS[2:4])],
        drops=1,
        epochs_per_round=1)
    cfg.model.alignments = dict(
        block=dict(type='mmblockdrop.BlockAlignment'),
        inside=dict(
            type='mmblockdrop.BlockAlignment', submodule='norm2:input'))
    runner = train(cfg)
    model = runner.model.student
    assert not [n for n, _ in model.backbone.blocks[1].named_parameters()]
    state, _ = read_weights(tmp_path / 'round_1.pth')
    assert not any(name.startswith('backbone.blocks.1.') for name in state)


@pytest.mark.slow
def test_halves_in_a_new_process(halved, tmp_path):
    cfg = sharpen(
        toy.config(
            tmp_path / 'plain',
            custom_hooks=[dict(type='mmblockdrop.BlockDropHook')]))
    cfg.load_from = str(halved / 'round_2.pth')
    cfg.experiment_name = 'halves'
    config = tmp_path / 'plain.py'
    cfg.dump(config)
    start(SCRIPT, 'test', config)
    metrics = json.loads(config.with_suffix('.json').read_text())
    assert metrics['tad/mAP'] == pytest.approx(
        read_record(halved)['rounds'][1]['metric_after'], abs=1e-6)


@pytest.mark.slow
def test_killed_runs_of_halves_end_like_whole_ones(trained, tmp_path):
    points = ['scoring', 'after_the_drop', 'in_an_epoch']
    start(
        KIT, trained, tmp_path, 'whole', *points,
        STRUCTURE='mmblockdrop.HalfBlocks')
    ended = json.loads((tmp_path / 'ended.json').read_text())
    assert ended == dict(whole=[0], **{point: [-9, 0] for point in points})
    assert read_record(tmp_path / 'whole')['kind'] == 'HalfBlocks'
    for point in points:
        assert_ended_alike(tmp_path / 'whole', tmp_path / point)


@pytest.mark.slow
def test_halves_are_exported(halved, tmp_path):
    import export
    import onnxruntime
    cfg = toy.config(tmp_path / 'plain')
    config, checkpoint = tmp_path / 'plain.py', str(halved / 'round_2.pth')
    cfg.dump(config)
    shape = ['1', '1', '3', str(toy.FRAMES), str(toy.SIZE), str(toy.SIZE)]
    out = tmp_path / 'out'
    assert export.main([
        str(config), checkpoint, str(out), '--onnx', 'encoder', '--shape',
        *shape
    ]) == 0
    gone = [r['dropped'][0] for r in read_record(halved)['rounds']]
    report = json.loads((out / 'export.json').read_text())
    assert sorted(report['halves']) == sorted(gone)
    backbone = Config.fromfile(out / 'model.py').model.backbone
    assert sorted(backbone.drop_blocks) == sorted(
        part.removeprefix('backbone.') for part in gone)
    before = init_localizer(str(config), checkpoint, device='cpu')
    after = init_localizer(
        str(out / 'model.py'), str(out / 'model.pth'), device='cpu')
    assert set(HalfBlocks(after, 'backbone.blocks').remaining) == {
        *IDS
    } - {*gone}
    inputs = example_inputs(cfg, localizer_config(cfg), [*map(int, shape)])
    with torch.no_grad():
        pairs = zip(network(before)(inputs), network(after)(inputs))
        for a, b in pairs:
            torch.testing.assert_close(a, b)
    clips = torch.randn(2, 3, toy.CLIP, toy.SIZE, toy.SIZE)
    session = onnxruntime.InferenceSession(str(out / 'encoder.onnx'))
    found, = session.run(None, dict(inputs=clips.numpy()))
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(found),
            before.backbone(clips),
            rtol=1e-3,
            atol=1e-4)
