"""The programs under tools, on a model of one weight."""
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from mmblockdrop.rounds import BlockDropHook

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from programs import load_program

ROOT = Path(__file__).resolve().parents[1]

TOY = '''
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn
from torch.utils.data import Dataset


@DATASETS.register_module(force=True)
class ToyNumbers(Dataset):
    METAINFO = metainfo = dict(classes=('number', ))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([float(index)]), data_samples=index)


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        error = (self.weight * inputs - 2 * inputs)**2
        if mode == 'loss':
            return dict(loss=error.mean())
        return [dict(index=int(index), error=float(value))
                for index, value in zip(data_samples, error)]


@METRICS.register_module(force=True)
class ToyError(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += [sample['error'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(error=sum(results) / len(results), count=len(results))
'''

CONFIG = '''
custom_imports = dict(imports=['toy_numbers'])
default_scope = 'mmengine'
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='ToyNumbers'),
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    dataset=dict(type='ToyNumbers'),
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='ToyError')
train_cfg = dict(by_epoch=True, max_epochs=3)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
env_cfg = dict(dist_cfg=dict(backend='nccl'))
log_level = 'WARNING'
'''


train = load_program('train')
test = load_program('test')


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """Folder with the toy's module and config, trained for three epochs."""
    folder = tmp_path_factory.mktemp('toy')
    (folder / 'toy_numbers.py').write_text(TOY)
    (folder / 'toy_config.py').write_text(CONFIG)
    sys.path.insert(0, str(folder))
    train.main([
        str(folder / 'toy_config.py'), '--work-dir',
        str(folder / 'whole'), '--seed', '1'
    ])
    yield folder
    sys.path.remove(str(folder))


def weight(path: Path) -> torch.Tensor:
    return CheckpointLoader.load_checkpoint(str(path))['state_dict']['weight']


def run(*command, toy: Path) -> subprocess.CompletedProcess:
    """Run a program in a process of its own, in the toy's folder."""
    done = subprocess.run([str(part) for part in command],
                          cwd=toy,
                          env=dict(
                              os.environ,
                              PYTHONPATH=os.pathsep.join([str(ROOT),
                                                          str(toy)]),
                              PYTHON=sys.executable,
                              PORT=str(free_port()),
                              OMP_NUM_THREADS='1'),
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True,
                          timeout=300)
    assert done.returncode == 0, done.stdout
    return done


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def test_training_writes_checkpoints(toy):
    assert (toy / 'whole' / 'epoch_3.pth').exists()
    assert 1 < weight(toy / 'whole' / 'epoch_3.pth') < 2.5


@pytest.mark.parametrize('resume', ['auto', 'path'])
def test_resumed_training_equals_uninterrupted(toy, tmp_path, resume):
    shutil.copy(toy / 'whole' / 'epoch_1.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    how = [] if resume == 'auto' else [str(tmp_path / 'epoch_1.pth')]
    train.main([
        str(toy / 'toy_config.py'), '--work-dir',
        str(tmp_path), '--seed', '1', '--resume', *how
    ])
    assert not (tmp_path / 'epoch_0.pth').exists()
    # The sampler's order depends on the epoch and the seed alone.
    assert torch.equal(
        weight(tmp_path / 'epoch_3.pth'), weight(toy / 'whole/epoch_3.pth'))


def test_testing_dumps_predictions(toy, tmp_path):
    test.main([
        str(toy / 'toy_config.py'),
        str(toy / 'whole' / 'epoch_3.pth'), '--work-dir',
        str(tmp_path), '--dump',
        str(tmp_path / 'predictions.pkl')
    ])
    predictions = mmengine.load(tmp_path / 'predictions.pkl')
    assert [sample['index'] for sample in predictions] == list(range(8))
    assert list(tmp_path.glob('*/*.json'))  # the metrics


@pytest.mark.slow
def test_two_processes_without_gpu(toy):
    """Trains on CPU by gloo although the config says nccl, and tests."""
    config = toy / 'toy_config.py'
    done = run(
        'bash',
        ROOT / 'tools' / 'dist_train.sh',
        config,
        2,
        '--work-dir',
        toy / 'two',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'log_level=INFO',
        toy=toy)
    assert 'toy/count: 8' in done.stdout  # four from each process
    assert done.stdout.count('toy/error') == 1  # by the main process alone
    tested = run(
        'bash',
        ROOT / 'tools' / 'dist_test.sh',
        config,
        toy / 'two' / 'epoch_1.pth',
        1,
        '--cfg-options',
        'log_level=INFO',
        toy=toy)
    error = re.compile(r'toy/error: ([\d.]+)')
    assert error.findall(tested.stdout) == error.findall(done.stdout)


def parsed(*argv: str) -> Config:
    args = train.parse_args(['config.py', *argv])
    return train.merge_args(
        Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD')))), args)


def test_arguments_reach_the_config():
    assert parsed().randomness == dict(seed=None)
    cfg = parsed('--seed', '3', '--deterministic', '--amp', '--no-validate',
                 '--resume', '--cfg-options', 'a.b=[1,2]')
    assert cfg.randomness == dict(seed=3, deterministic=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.val_cfg is None and cfg.val_dataloader is None
    assert cfg.resume is True and cfg.load_from is None
    assert cfg.a.b == [1, 2]


def trained(toy, tmp_path, *flags) -> dict:
    """Checkpoint of one more epoch of the toy."""
    train.main([
        str(toy / 'toy_config.py'), '--work-dir',
        str(tmp_path), *flags, '--cfg-options', 'train_cfg.max_epochs=1'
    ])
    return CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'))


def test_learning_rate_is_scaled_with_the_batch(toy, tmp_path):
    """The toy's batches hold 2 samples, its rate is 0.001 for 8."""
    config = toy / 'scaled.py'
    config.write_text("_base_ = './toy_config.py'\n"
                      'auto_scale_lr = dict(base_batch_size=8)\n')
    for flags, expected in (([], 0.001), (['--auto-scale-lr'], 0.00025)):
        train.main([
            str(config), '--work-dir',
            str(tmp_path), *flags, '--cfg-options', 'train_cfg.max_epochs=1'
        ])
        found = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'))
        assert found['optimizer']['param_groups'][0]['lr'] == expected


def test_seed_decides_the_order_of_samples(toy, tmp_path):
    weights = [
        trained(toy, tmp_path / str(i), '--seed', seed)['state_dict']['weight']
        for i, seed in enumerate(('1', '1', '2'))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_mixed_precision_reaches_the_optimizer_wrapper(toy, monkeypatch):
    from mmengine.optim import AmpOptimWrapper
    built = []

    class Reached(Exception):
        """The wrapper itself needs a GPU."""

    def construct(self, **kwargs):
        built.append(kwargs)
        raise Reached

    monkeypatch.setattr(AmpOptimWrapper, '__init__', construct)
    monkeypatch.setattr(train, 'require_accelerator', lambda cfg: None)
    with pytest.raises(Reached):
        train.main([str(toy / 'toy_config.py'), '--amp', '--work-dir',
                    str(toy / 'amp')])
    assert built[0]['loss_scale'] == 'dynamic'


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_mixed_precision_without_gpu_is_rejected_at_once(toy, tmp_path):
    with pytest.raises(ValueError, match='AmpOptimWrapper.*GPU'):
        train.main([str(toy / 'toy_config.py'), '--amp', '--work-dir',
                    str(tmp_path / 'amp')])
    assert not (tmp_path / 'amp').exists()


def test_shorter_training_leaves_out_later_schedulers(toy, tmp_path):
    """The cosine begins after the one epoch that is left."""
    config = toy / 'scheduled.py'
    config.write_text(
        "_base_ = './toy_config.py'\nparam_scheduler = ["
        "dict(type='LinearLR', start_factor=0.1, end=1,"
        ' convert_to_iter_based=True), '
        "dict(type='CosineAnnealingLR', begin=1, eta_min_ratio=0.01,"
        ' convert_to_iter_based=True)]\n')
    for epochs, schedulers in ((1, 1), (2, 2)):
        train.main([
            str(config), '--work-dir', str(tmp_path), '--cfg-options',
            f'train_cfg.max_epochs={epochs}'
        ])
        found = CheckpointLoader.load_checkpoint(
            str(tmp_path / f'epoch_{epochs}.pth'))
        assert len(found['param_schedulers']) == schedulers


def test_copied_folder_resumes_from_itself(toy, tmp_path):
    """Its ``last_checkpoint`` names the folder that it is a copy of."""
    for epoch in (1, 2):
        shutil.copy(toy / 'whole' / f'epoch_{epoch}.pth', tmp_path)
    whole = toy / 'whole' / 'epoch_3.pth'
    (tmp_path / 'last_checkpoint').write_text(str(whole))
    content = (tmp_path / 'epoch_2.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(content[:len(content) // 2])
    command = [str(toy / 'toy_config.py'), '--work-dir', str(tmp_path),
               '--seed', '1', '--resume']
    (tmp_path / 'epoch_1.pth').rename(tmp_path / 'kept.pth')
    cfg = Config(dict(work_dir=str(tmp_path), resume=True))
    train.resume_from_here(cfg, 'start.pth')
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')
    (tmp_path / 'kept.pth').rename(tmp_path / 'epoch_1.pth')
    train.main(command)
    assert torch.equal(weight(tmp_path / 'epoch_3.pth'), weight(whole))


def test_two_trainings_in_one_folder(toy, tmp_path):
    """The second one is rejected and changes nothing."""
    hold = ('import sys, time\nfrom mmblockdrop.utils.lock import owned\n'
            'with owned(sys.argv[1]):\n print(flush=True)\n time.sleep(99)')
    held = subprocess.Popen([sys.executable, '-c', hold, str(tmp_path)],
                            env=dict(os.environ, PYTHONPATH=str(ROOT)),
                            stdout=subprocess.PIPE)
    try:
        held.stdout.readline()
        with pytest.raises(RuntimeError,
                           match=f'{tmp_path}.*process {held.pid}'):
            train.main([str(toy / 'toy_config.py'), '--work-dir',
                        str(tmp_path)])
    finally:
        held.kill()
        held.wait()
    assert [p.name for p in tmp_path.iterdir()] == ['run.lock']


def test_wrong_config_names_the_nearest(toy):
    with pytest.raises(FileNotFoundError, match="config.*'toy_config.py'"):
        train.main([str(toy / 'toy_confg.py')])


def test_wrong_checkpoint_names_the_nearest(toy):
    with pytest.raises(
            FileNotFoundError, match=r"checkpoint.*epoch_9.*'epoch_\d.pth'"):
        test.main([str(toy / 'toy_config.py'), str(toy / 'whole/epoch_9.pth')])
    with pytest.raises(FileNotFoundError, match=r'--resume'):
        train.main([
            str(toy / 'toy_config.py'), '--resume',
            str(toy / 'whole/epoch_9.pth')
        ])


def test_arguments_that_do_not_fit_are_rejected(toy):
    with pytest.raises(ValueError, match='config.py.*auto_scale_lr'):
        parsed('--auto-scale-lr')
    with pytest.raises(
            ValueError, match="optim_wrapper.type='MyWrapper'.*OptimWrapper"):
        train.merge_args(
            Config(dict(optim_wrapper=dict(type='MyWrapper'))),
            train.parse_args(['config.py', '--amp']))
    with pytest.raises(ValueError, match="--dump='predictions.txt'.*[.]pkl"):
        test.main([
            str(toy / 'toy_config.py'),
            str(toy / 'whole/epoch_3.pth'), '--dump', 'predictions.txt'
        ])


RECORD = dict(stack='backbone.blocks', depth=2, rounds=[])


@pytest.mark.parametrize('meta,hooks,added', [
    (dict(blockdrop=RECORD), None, 1),
    (dict(blockdrop=RECORD), [dict(type='mmblockdrop.BlockDropHook')], 0),
    (dict(blockdrop=RECORD), [dict(type=BlockDropHook)], 0),
    (dict(), [], 0)
])
def test_testing_finds_dropped_blocks_in_the_checkpoint(
        tmp_path, meta, hooks, added):
    path = str(tmp_path / 'model.pth')
    torch.save(dict(meta=meta, state_dict={}), path)
    cfg = test.follow_checkpoint(
        Config(dict(load_from=path, custom_hooks=hooks)))
    found = list(cfg.custom_hooks or [])
    assert len(found) == len(hooks or []) + added
    if added:
        assert found[-1] == dict(
            type='mmblockdrop.BlockDropHook', stack='backbone.blocks')
