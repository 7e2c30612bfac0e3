"""Types of configs, written as text and as classes."""
from mmblockdrop.distillation import TeacherStudentWrapper
from mmblockdrop.utils.config import localizer_config, plain_config, type_name

import mmaction.models
import pytest
from mmengine.config import Config

CLASSES = '''
from mmaction.models import BMN
from mmengine.dataset import DefaultSampler
from torch.optim import AdamW
model = dict(type=BMN, temporal_dim=8)
sampler = dict(type=DefaultSampler, shuffle=False)
steps = [dict(type=AdamW, betas=(0.9, 0.99))]
'''


@pytest.fixture
def lazy(tmp_path):
    """A config of mmengine's new style."""
    path = tmp_path / 'lazy.py'
    path.write_text(CLASSES)
    return Config.fromfile(path)


@pytest.mark.parametrize('cfg, name', [
    (dict(type='mmaction.BMN'), 'BMN'),
    (dict(type='BMN'), 'BMN'),
    (dict(type=mmaction.models.BMN), 'BMN'),
    (dict(), ''),
    (None, ''),
])
def test_the_name_of_a_type(cfg, name):
    assert type_name(cfg) == name


def test_new_style_configs_become_text(lazy):
    assert type_name(lazy.model) == 'BMN'
    assert plain_config(lazy.model) == dict(
        type='mmaction.BMN', temporal_dim=8)
    assert plain_config(lazy.sampler)['type'] == 'mmengine.DefaultSampler'
    step, = plain_config(lazy.steps)
    assert step['type'] == 'torch.optim.adamw.AdamW'
    assert step['betas'] == (0.9, 0.99)
    assert type(step) is dict


@pytest.mark.parametrize(
    'wrapper', ['mmblockdrop.TeacherStudentWrapper', TeacherStudentWrapper])
def test_localizer_of_a_config(wrapper):
    localizer = dict(type='mmblockdrop.ActionFormer')
    for model in (localizer, dict(type=wrapper, localizer=localizer)):
        assert localizer_config(Config(dict(model=model))) == localizer
    with pytest.raises(ValueError, match="no model.*'other'"):
        localizer_config(Config(dict(other=1)))
