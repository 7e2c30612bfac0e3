"""Each patch of an import or of the launcher is still needed.

Where a test fails because a defect is gone, remove the patch.
"""
import json
import re

import pytest
from patches_kit import free_port, start

# Prints, as JSON, what fails in a process without any patch. The bare
# 'mmaction.models' keeps the probes from importing all of it.
WITHOUT_PATCHES = r'''
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
def latest():
    import tempfile
    from mmengine.runner.checkpoint import find_latest_checkpoint
    with tempfile.TemporaryDirectory() as folder:
        open(folder + '/epoch_1.pth', 'w').close()
        with open(folder + '/last_checkpoint', 'w') as note:
            note.write('/original/epoch_1.pth')
        raise FileNotFoundError(find_latest_checkpoint(folder))
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
'''


@pytest.fixture(scope='module', autouse=True)
def process_without_patches():
    """Runs beside the first tests."""
    process = start(
        WITHOUT_PATCHES,
        CUDA_VISIBLE_DEVICES='-1',
        RANK='0',
        LOCAL_RANK='0',
        WORLD_SIZE='1',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(free_port()))
    yield process
    process.kill()


def test_mmaction_models_are_imported():
    import mmaction.models
    from mmaction.registry import MODELS
    with pytest.raises(ImportError, match='mmaction2 from source'):
        MODELS.build(dict(type='mmaction.DRN'))
    with pytest.raises(ImportError, match='VindLUVQA .* cannot be used here'):
        MODELS.build(dict(type='mmaction.VindLUVQA'))


def test_transformers_is_imported_where_it_is_used():
    code = (
        'import sys, mmblockdrop, mmaction.models, mmengine.optim\n'
        'from mmengine.registry import OPTIMIZERS\n'
        'early = {"transformers", "peft"} & set(sys.modules)\n'
        'import torch\n'
        'weight = torch.nn.Parameter(torch.zeros(2))\n'
        'cfg = dict(type="Adafactor", params=[weight])\n'
        'kind = type(OPTIMIZERS.build(cfg)).__module__\n'
        'print(early or kind)')
    out, errors = start(code).communicate(timeout=300)
    assert out.splitlines()[-1:] == ['transformers.optimization'], errors


@pytest.mark.slow
@pytest.mark.parametrize('patch, expected', [
    ('scope', 'does not support to load mmblockdrop config'),
    ('latest', '/original/epoch_1.pth'),
    ('drn', "No module named 'mmaction.models.localizers.drn'"),
    ('multimodal', "cannot import name 'apply_chunking_to_forward'"),
    ('torchvision', 'operator torchvision::nms does not exist'),
    ('launcher', 'cuda|nvidia'),
])
def test_patch_is_needed(process_without_patches, patch, expected):
    if process_without_patches.stdout is not None:
        out, errors = process_without_patches.communicate(timeout=120)
        assert process_without_patches.returncode == 0, errors
        process_without_patches.found = json.loads(out.splitlines()[-1])
        process_without_patches.stdout = None
    assert re.search(expected, process_without_patches.found[patch], re.I)


def test_torchvision_of_another_build_is_imported():
    code = ('import mmblockdrop, torch\n'
            'def load_library(path):\n    raise OSError\n'
            'torch.ops.load_library = load_library\n'
            'import torchvision.ops\n'
            'print(torchvision.extension._has_ops(),'
            ' torch.ops.torchvision.nms.default)')
    out, errors = start(code).communicate(timeout=120)
    assert out.strip() == 'False torchvision.nms.default', errors
