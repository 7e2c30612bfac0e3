"""The mends: what they mend, and that each of them is still needed.

Where a test below fails because a defect is gone, remove the mend.
"""
import functools
import http.server
import inspect
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import mmaction.datasets.transforms.processing as processing
import mmengine.dist as dist
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from mmblockdrop import compat
from mmblockdrop.compat import colorjitter, importing, versions

ROOT = Path(__file__).resolve().parents[1]

# Prints, as JSON, what fails in a process without any mend. The bare
# 'mmaction.models' keeps the probes from importing all of it.
WITHOUT_MENDS = r"""
import importlib.machinery, json, os, sys, types
import torch
found = {}

def probe(function):
    try:
        function()
        found[function.__name__] = ''
    except Exception as error:
        found[function.__name__] = f'{type(error).__name__}: {error}'

@probe
def torchvision():
    def load_library(path):
        raise OSError('built for another torch')
    torch.ops.load_library = load_library
    import torchvision

# Out of the way of the probes that follow.
library = torch.library.Library('torchvision', 'FRAGMENT')
for name in ('nms', 'qnms'):
    library.define(name + '(Tensor a, Tensor b, float c) -> Tensor')
import torchvision, mmaction
bare = types.ModuleType('mmaction.models')
bare.__path__ = [os.path.join(mmaction.__path__[0], 'models')]
sys.modules['mmaction.models'] = bare
for name in ('timm', 'timm.models', 'timm.models.layers'):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
sys.modules['timm.models.layers'].DropPath = torch.nn.Identity

@probe
def scope():
    from mmengine.config.config import Config
    Config._get_cfg_path('mmblockdrop::a/b.py', '')
@probe
def drn():
    import mmaction.models.localizers
@probe
def multimodal():
    import mmaction.models.multimodal
@probe
def launcher():
    from mmengine.dist import init_dist
    init_dist('pytorch', backend='gloo')

print(json.dumps(found))
"""


def start(code: str, **variables: str) -> subprocess.Popen:
    """Start a Python process that imports from this repository."""
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code],
                            env=dict(
                                os.environ, PYTHONPATH=str(ROOT), **variables),
                            stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE,
                            text=True)


@pytest.fixture(scope='module', autouse=True)
def process_without_mends():
    """Runs beside the first tests."""
    process = start(
        WITHOUT_MENDS,
        CUDA_VISIBLE_DEVICES='-1',
        RANK='0',
        LOCAL_RANK='0',
        WORLD_SIZE='1',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(free_port()))
    yield process
    process.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


# ---------------------------------------------------------------- versions


def test_versions_are_accepted_here():
    compat.check_versions()


@pytest.mark.parametrize('distribution, found, expected', [
    ('mmengine', '0.9.1', 'mmengine>=0.10.7,<0.11, found 0.9.1'),
    ('mmengine', '0.11.0rc0', 'mmengine>=0.10.7,<0.11, found 0.11.0rc0'),
    ('torch', '2.0.1+cpu', "pip install 'torch>=2.1'"),
    ('mmcv-lite', '2.2.0', 'mmcv-lite>=2.0.0rc4,<2.2, found 2.2.0'),
    ('mmaction2', None, 'mmaction2>=1.2.0,<1.3, found none'),
])
def test_wrong_version_names_what_to_install(monkeypatch, distribution, found,
                                             expected):
    original = versions.installed_version

    def installed_version(requirement):
        if distribution in requirement.distributions:
            return found
        return original(requirement)

    monkeypatch.setattr(versions, 'installed_version', installed_version)
    with pytest.raises(ImportError) as caught:
        compat.check_versions()
    assert expected in str(caught.value)


@pytest.mark.parametrize('distribution, found', [
    ('torch', '2.1.0'),
    ('torch', '2.13.0+cu130'),
    ('mmcv-lite', '2.0.0rc4'),
    ('mmcv-lite', '2.1.0'),
])
def test_supported_version_is_accepted(monkeypatch, distribution, found):
    monkeypatch.setattr(
        versions, 'installed_version', lambda requirement: found
        if distribution in requirement.distributions else requirement.wanted.
        split(',')[0].lstrip('>='))
    compat.check_versions()


def test_version_of_a_checkout_without_metadata(tmp_path, monkeypatch):
    (tmp_path / 'checkout_only.py').write_text("__version__ = '3.2.1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    requirement = versions.Requirement('checkout_only', ('nowhere', ), '>=3')
    assert versions.installed_version(requirement) == '3.2.1'
    absent = versions.Requirement('not_there_at_all', ('nowhere', ), '>=3')
    assert versions.installed_version(absent) is None


# --------------------------------------------------------------- importing


def test_mend_waits_for_the_import(tmp_path, monkeypatch):
    (tmp_path / 'late_module.py').write_text('def value():\n    return 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    importing.after_import('late_module', seen.append)
    assert seen == []
    import late_module
    assert seen == [late_module]
    assert 'return 1' in inspect.getsource(late_module)
    importing.after_import('late_module', seen.append)
    assert seen == [late_module, late_module]


def test_real_module_wins_over_stand_in(tmp_path, monkeypatch):
    (tmp_path / 'real_module.py').write_text('real = True\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ('real_module', 'absent_module'):
        importing.stand_in(name, lambda module: setattr(module, 'real', False))
    import absent_module
    import real_module
    assert real_module.real and not absent_module.real


def test_import_error_is_handed_over(tmp_path, monkeypatch):
    (tmp_path / 'broken_module.py').write_text('import not_there_at_all\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    errors = []
    importing.on_failed_import('broken_module',
                               lambda module, error: errors.append(error))
    import broken_module  # noqa: F401
    assert 'not_there_at_all' in str(errors[0])


def test_unknown_mend_names_the_nearest(monkeypatch):
    monkeypatch.setenv('MMBLOCKDROP_WITHOUT', 'glo')
    monkeypatch.setattr(compat, '_applied', False)
    with pytest.raises(ValueError, match="nearest is 'gloo'"):
        compat.apply()


# -------------------------------------------------------------- checkpoint


class Toy(BaseModel):
    """One weight, with the loss its square."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=(self.weight**2).sum())


def toy_runner(work_dir, name: str, max_epochs: int, **kwargs) -> Runner:
    return Runner(
        model=Toy(),
        work_dir=str(work_dir),
        experiment_name=name,
        train_dataloader=dict(
            dataset=[dict(inputs=torch.zeros(1))] * 4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        log_level='ERROR',
        **kwargs)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    """A checkpoint that mmengine wrote, with its log history."""
    folder = tmp_path_factory.mktemp('checkpoint')
    runner = toy_runner(folder, 'first', 1)
    runner.message_hub.update_info('best_score', np.float64(0.5))
    runner.message_hub.update_info('flag', np.bool_(True))
    runner.train()
    return str(folder / 'epoch_1.pth')


def test_resume_continues_the_log_history(checkpoint, tmp_path):
    resumed = toy_runner(
        tmp_path, 'second', 2, load_from=checkpoint, resume=True)
    resumed.train()
    whole = toy_runner(tmp_path / 'whole', 'whole', 2)
    whole.train()
    assert torch.equal(resumed.model.weight, whole.model.weight)
    history = resumed.message_hub.log_scalars['train/loss']
    expected = whole.message_hub.log_scalars['train/loss']
    np.testing.assert_array_equal(history.data[0], expected.data[0])
    assert history.statistics('max') == 1
    assert resumed.message_hub.get_info('best_score') == 0.5


def test_checkpoint_mend_is_needed(checkpoint):
    unmended = CheckpointLoader.load_checkpoint.__func__.__wrapped__
    with pytest.raises(pickle.UnpicklingError, match='not an allowed global'):
        unmended(CheckpointLoader, checkpoint)


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_checkpoints_of_numpy_1_and_2_are_loaded(tmp_path, core):
    path = tmp_path / 'numpy.pth'
    arrays = dict(
        history=HistoryBuffer([1., 2.], [1, 1]),
        scalar=np.float32(3.),
        text=np.array(['a', 'bc']),
        big_endian=np.arange(3, dtype='>i4'))
    torch.save(arrays, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b'numpy.core.', b'numpy._core.'):
        content = content.replace(name, core.encode() + b'.')
    path.write_bytes(content)
    assert core.encode() + b'.multiarray' in content
    loaded = CheckpointLoader.load_checkpoint(str(path))
    assert loaded['history'].mean() == 1.5
    assert loaded['scalar'] == 3
    assert loaded['text'].tolist() == ['a', 'bc']
    assert loaded['big_endian'].tolist() == [0, 1, 2]


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('use', ['loader', 'runner', 'url'])
def test_code_in_a_checkpoint_is_refused(tmp_path, monkeypatch, use):
    victim = tmp_path / 'victim'
    path = tmp_path / 'evil.pth'
    attack = Calls(os.system, f'touch {victim}')
    torch.save(dict(state_dict={}, meta=attack), path)
    with pytest.raises(pickle.UnpicklingError) as caught:
        if use == 'loader':
            CheckpointLoader.load_checkpoint(str(path))
        elif use == 'runner':
            toy_runner(
                tmp_path / 'run',
                f'evil{use}',
                1,
                load_from=str(path),
                resume=True).train()
        else:
            monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
            load_by_http(path)
    assert f'{os.system.__module__}.system' in str(caught.value)
    assert 'evil.pth' in str(caught.value)
    assert not victim.exists()


def load_by_http(path: Path) -> None:
    """Serve a folder and load one of its files by URL."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(path.parent))
    with http.server.HTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            CheckpointLoader.load_checkpoint(
                f'http://127.0.0.1:{server.server_port}/{path.name}')
        finally:
            server.shutdown()


@pytest.mark.parametrize('attack, named', [
    (Calls(getattr, HistoryBuffer, '__init__'), '__init__'),
    (Calls(getattr, HistoryBuffer, '__globals__'), '__globals__'),
    (Calls(getattr, np.ndarray, 'tofile'), 'tofile'),
    (Calls(eval, '1'), 'eval'),
    (Calls(np.load, 'x'), 'load'),
])
def test_getattr_reaches_statistics_only(tmp_path, attack, named):
    path = tmp_path / 'evil.pth'
    torch.save(dict(meta=attack), path)
    with pytest.raises(pickle.UnpicklingError, match=named):
        CheckpointLoader.load_checkpoint(str(path))


def test_names_allowed_by_the_user_stay_allowed(checkpoint):
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([np.ndarray, Calls]):
        CheckpointLoader.load_checkpoint(checkpoint)
        left = set(torch.serialization.get_safe_globals())
        assert left == before | {np.ndarray, Calls}


# -------------------------------------------------------------------- gloo


@pytest.fixture
def process_group(monkeypatch):
    """A group of one process, made by mmengine's launcher without CUDA."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for key, value in dict(
            RANK=0,
            LOCAL_RANK=0,
            WORLD_SIZE=1,
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=free_port()).items():
        monkeypatch.setenv(key, str(value))
    dist.init_dist('pytorch', backend='nccl')
    yield
    torch.distributed.destroy_process_group()


def test_launcher_works_without_cuda(process_group):
    assert dist.get_backend() == 'gloo'
    assert dist.get_world_size() == 1
    model = MMDistributedDataParallel(Toy(), device_ids=[0])
    assert model(torch.zeros(1))['loss'] == 1
    unmended = MMDistributedDataParallel.__init__.__wrapped__
    with pytest.raises(ValueError, match='device_ids'):
        unmended(
            MMDistributedDataParallel.__new__(MMDistributedDataParallel),
            Toy(),
            device_ids=[0])


# -------------------------------------------------------------- mmaction2


def test_mmaction_models_are_imported():
    import mmaction.models  # noqa: F401
    from mmaction.registry import MODELS
    with pytest.raises(ImportError, match='mmaction2 from source'):
        MODELS.build(dict(type='mmaction.DRN'))
    with pytest.raises(ImportError, match='VindLUVQA .* cannot be used here'):
        MODELS.build(dict(type='mmaction.VindLUVQA'))


def tiny_vit(**kwargs) -> nn.Module:
    from mmaction.models import VisionTransformer
    return VisionTransformer(
        img_size=16,
        embed_dims=4,
        depth=1,
        num_heads=1,
        num_frames=2,
        **kwargs)


@pytest.mark.parametrize('init_cfg', [
    dict(),
    dict(init_cfg=None),
    dict(init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02)),
])
def test_vit_loads_pretrained_weights(tmp_path, init_cfg):
    source = tiny_vit()
    path = str(tmp_path / 'vit.pth')
    torch.save(source.state_dict(), path)
    target = tiny_vit(pretrained=path, **init_cfg)
    target.init_weights()
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_vit_without_pretrained_is_left_alone():
    assert [entry['type']
            for entry in tiny_vit().init_cfg] == ['TruncNormal', 'Constant']


def test_vit_mend_is_needed():
    from mmaction.models import VisionTransformer
    vit = VisionTransformer.__new__(VisionTransformer)
    VisionTransformer.__init__.__wrapped__(
        vit, img_size=16, embed_dims=4, depth=1, num_heads=1, pretrained='x')
    assert all(entry['type'] != 'Pretrained' for entry in vit.init_cfg)


def test_color_jitter_shifts_hue_both_ways(monkeypatch):
    """Compares with numpy 1 where that runs, and always with plain sums."""
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    mended = type('Mended', (), {})
    mended.ColorJitter = type('ColorJitter', (processing.ColorJitter, ), {})
    numpy_1 = np.__version__.startswith('1.')
    with monkeypatch.context() as patch:
        patch.setattr(np, '__version__', '2.0.0')
        colorjitter._widen_hue(mended)
    for factor in (-0.5, -0.1, 0, 0.1, 0.29):
        shifted = mended.ColorJitter.adjust_hue(image, factor)
        assert shifted.dtype == np.float32 and shifted.shape == image.shape
        if numpy_1:  # the mend has left mmaction2's own method in place
            np.testing.assert_array_equal(
                shifted, processing.ColorJitter.adjust_hue(image, factor))
    full_turn = mended.ColorJitter.adjust_hue(image, 180 / 255)
    none = mended.ColorJitter.adjust_hue(image, 0)
    np.testing.assert_array_equal(full_turn, none)


def test_color_jitter_mend_is_needed():
    source = Path(inspect.getsourcefile(processing)).read_text()
    assert 'hsv[..., 0] + offset) % 180' in source


def test_color_jitter_runs():
    np.random.seed(0)
    images = [np.full((4, 4, 3), 100, np.uint8)] * 2
    for _ in range(20):
        out = processing.ColorJitter(hue=0.5).transform(dict(imgs=images))
        assert out['imgs'][0].shape == (4, 4, 3)


# ------------------------------------------------------------------- scope


def test_configs_inherit_from_ours(tmp_path, monkeypatch):
    name = next((ROOT / 'configs').rglob('*.py')).relative_to(ROOT / 'configs')
    file = tmp_path / 'config.py'
    file.write_text(f"_base_ = 'mmblockdrop::{name.as_posix()}'\nextra = 1\n")
    assert Config.fromfile(file).extra == 1


# ------------------------------------------------------------ still needed


@pytest.mark.parametrize('mend, expected', [
    ('scope', 'does not support to load mmblockdrop config'),
    ('drn', "No module named 'mmaction.models.localizers.drn'"),
    ('multimodal', "cannot import name 'apply_chunking_to_forward'"),
    ('torchvision', 'operator torchvision::nms does not exist'),
    ('launcher', 'cuda|nvidia'),
])
def test_mend_is_needed(process_without_mends, mend, expected):
    if process_without_mends.stdout is not None:
        out, errors = process_without_mends.communicate(timeout=120)
        assert process_without_mends.returncode == 0, errors
        process_without_mends.found = json.loads(out.splitlines()[-1])
        process_without_mends.stdout = None
    assert re.search(expected, process_without_mends.found[mend], re.I)


def test_torchvision_of_another_build_is_imported():
    code = ('import mmblockdrop, torch\n'
            'def load_library(path):\n    raise OSError\n'
            'torch.ops.load_library = load_library\n'
            'import torchvision.ops\n'
            'print(torchvision.extension._has_ops(),'
            ' torch.ops.torchvision.nms.default)')
    out, errors = start(code).communicate(timeout=120)
    assert out.strip() == 'False torchvision.nms.default', errors
