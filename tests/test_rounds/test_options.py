"""The method's options together, in runs of two rounds."""
from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.hooks import Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from rounds_kit import (block_of, blocks_in, metric_of, read_record,
                        read_weights, train)

pytestmark = pytest.mark.usefixtures('unmeasured')


class Watch(Hook):
    """Notes what a training step really did."""

    def __init__(self):
        self.norms, self.types, self.scales = [], set(), []
        self.calls, self.handles = [], []

    def before_train_epoch(self, runner):
        """Look at the first block, which stays, and at what is before."""
        backbone = runner.model.student.backbone
        self.handles = [
            backbone.patch_embed.register_forward_hook(self.look('embed')),
            backbone.blocks[0].attn.qkv.register_forward_hook(
                self.look('block')),
            runner.optim_wrapper.optimizer.register_step_pre_hook(self.step)
        ]

    def after_train_epoch(self, runner):
        """Look away."""
        for handle in self.handles:
            handle.remove()

    def look(self, name):
        """Note calls of a module, and in which type it computes."""

        def hook(module, args, output):
            self.calls.append(name)
            if name == 'block':
                self.types.add(output.dtype)

        return hook

    def step(self, optimizer, args, kwargs):
        """Note the gradients that the optimizer gets."""
        self.norms.append(
            torch.stack([
                p.grad.norm() for group in optimizer.param_groups
                for p in group['params'] if p.grad is not None
            ]).norm().item())

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        """Note the scale of the loss."""
        self.scales.append(runner.optim_wrapper.loss_scaler.get_scale())


@pytest.fixture
def amp_on_cpu(monkeypatch):
    """mmengine's AMP with a scaler that scales, on a machine without GPU."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available',
                        lambda: True)
    monkeypatch.setattr(
        amp_optimizer_wrapper, 'GradScaler', lambda **settings: torch.amp.
        GradScaler('cpu', init_scale=256., growth_interval=3, **settings))


@pytest.mark.parametrize('dynamic', [False, True])
def test_everything_at_once(block_drop, tmp_path, trained, amp_on_cpu,
                            dynamic):
    """EMA, AMP with a scaler, clipping, recomputed blocks; one block gone
    before, one protected; teacher static or dynamic."""
    cfg = block_drop(
        tmp_path,
        protect=[0],
        student=dict(dynamic_teacher=dynamic),
        custom_hooks=[
            dict(type='mmblockdrop.BlockDropHook', start_dropped=[2]),
            dict(type='EMAHook', momentum=0.3)
        ])
    cfg.model.localizer.backbone.with_cp = True
    cfg.optim_wrapper.update(
        type='AmpOptimWrapper', dtype='bfloat16', clip_grad=dict(
            max_norm=0.05))
    cfg.experiment_name = f'everything_{dynamic}'
    runner, watch = Runner.from_cfg(cfg), Watch()
    runner.register_hook(watch)
    runner.train()

    assert watch.types == {torch.bfloat16}
    assert len(watch.norms) == 16
    assert watch.norms == pytest.approx([0.05] * 16, rel=1e-3)
    # grows every third step, and starts anew with each round
    assert watch.scales[:4] == [256., 256., 512., 512.]
    assert watch.scales[8:12] == watch.scales[:4]
    # once forward, and once more for the gradients
    assert watch.calls.count('block') == 2 * watch.calls.count('embed')
    record = read_record(tmp_path)
    assert record['start_dropped'] == [2]
    first, second = record['rounds']
    assert sorted(first['dropped'] + second['dropped']) == [1, 3]
    assert first['blocks_left'] == sorted({0, *second['dropped']})
    assert second['blocks_left'] == [0]
    assert set(first['scores']) == {'1', '3'}
    teacher = BlockStack(runner.model.teacher, 'backbone.blocks')
    assert teacher.remaining == (first['blocks_left'] if dynamic else list(
        range(toy.DEPTH)))
    for entry in record['rounds']:
        state, _ = read_weights(tmp_path / entry['checkpoint'])
        gone = sorted(set(range(toy.DEPTH)) - set(entry['blocks_left']))
        assert metric_of(state, cfg, gone) == pytest.approx(
            entry['metric_after'], abs=1e-6)
    content = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)
    assert content['optimizer']['loss_scaler']['scale'] == 512.
    assert content['ema_state_dict']['steps'] == 4


def test_recomputing_by_config_outlives_scoring(block_drop, tmp_path):
    """mmengine sets ``forward`` on the modules, and so does scoring."""
    cfg = block_drop(tmp_path, drops=1, epochs_per_round=1, lora=None)
    cfg.activation_checkpointing = [
        f'student.backbone.blocks.{i}' for i in range(toy.DEPTH)
    ]
    runner = train(cfg)
    for index in BlockStack(runner.model.student, 'backbone.blocks').remaining:
        assert 'forward' in vars(runner.model.student.backbone.blocks[index])


@pytest.fixture(scope='module')
def carried(block_drop, tmp_path_factory):
    """Work directory of a run that merges LoRA at its end."""
    cfg = block_drop(
        tmp_path_factory.mktemp('carried'), student=dict(merge_lora='end'))
    train(cfg)
    return cfg


def test_lora_is_carried_on_and_merged_at_the_end(carried, trained):
    work_dir = carried.work_dir
    origin = read_weights(trained)[0]
    first, _ = read_weights(f'{work_dir}/round_1.pth')
    later, _ = read_weights(f'{work_dir}/epoch_4.pth')
    kept = [k for k in later if '.base_layer.' in k]
    assert kept and any('lora_B' in k for k in first)
    for name in kept:  # what LoRA wraps is that of the start, all along
        assert torch.equal(later[name], origin[name.replace(
            '.base_layer', '')])
    record = read_record(work_dir)
    assert record['result'] == 'round_2.pth'
    result, meta = read_weights(f'{work_dir}/round_2.pth')
    plain = MODELS.build(toy.localizer()).state_dict()
    left = record['rounds'][1]['blocks_left']
    assert blocks_in(result) == left
    assert set(result) == {k for k in plain if block_of(k) in (None, *left)}
    assert 'lora' not in meta['blockdrop']
    gone = sorted(set(range(toy.DEPTH)) - set(left))
    assert metric_of(result, carried, gone) == pytest.approx(
        record['rounds'][1]['metric_after'], abs=1e-6)
    shorter = MODELS.build(toy.localizer(drop_blocks=gone))
    assert record['rounds'][1]['params'] == sum(
        p.numel() for p in shorter.parameters())  # LoRA does not count


def test_carried_lora_goes_on_from_a_round(carried, block_drop, tmp_path):
    cfg = block_drop(tmp_path, merge_lora='end', resume=True)
    cfg.load_from = f'{carried.work_dir}/round_1.pth'
    train(cfg)
    one, _ = read_weights(f'{carried.work_dir}/round_2.pth')
    two, _ = read_weights(tmp_path / 'round_2.pth')
    assert list(one) == list(two)
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_seed_that_was_drawn_is_taken_over(block_drop, tmp_path):
    """Without a seed in the config, the order of the data follows too."""
    cfg = block_drop(tmp_path / 'whole', drops=1)
    cfg.randomness = dict(seed=None)
    train(cfg)
    cfg = block_drop(tmp_path / 'rest', drops=1, resume=True)
    cfg.randomness = dict(seed=None)
    cfg.load_from = str(tmp_path / 'whole' / 'epoch_1.pth')
    (tmp_path / 'rest').mkdir()
    best = 'round_1_best.pth'
    (tmp_path / 'rest' / best).write_bytes(
        (tmp_path / 'whole' / best).read_bytes())
    train(cfg)
    one, _ = read_weights(tmp_path / 'whole' / 'epoch_2.pth')
    two, _ = read_weights(tmp_path / 'rest' / 'epoch_2.pth')
    for name in one:
        assert torch.equal(one[name], two[name]), name


class Steps(Hook):
    """Notes at which iterations the optimizer steps."""

    def __init__(self):
        self.iters = []

    def before_train_epoch(self, runner):
        self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda *args: self.iters.append(runner.iter))

    def after_train_epoch(self, runner):
        self.handle.remove()


def test_accumulated_gradients_count_to_the_end_of_the_round(
        block_drop, tmp_path):
    """Four iterations a round; the last one steps with the rest."""
    settings = dict(drops=3, epochs_per_round=1)
    cfg = block_drop(tmp_path / 'whole', **settings)
    cfg.optim_wrapper.accumulative_counts = 3
    cfg.experiment_name = 'accumulated'
    runner, steps = Runner.from_cfg(cfg), Steps()
    runner.register_hook(steps)
    runner.train()
    assert steps.iters == [2, 3, 6, 7, 10, 11]
