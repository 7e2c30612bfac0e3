"""A trained toy localizer, alone and beside its teacher."""
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.logging import MMLogger
from scorers_kit import make_batches


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> str:
    """Checkpoint of a toy localizer whose blocks all matter."""
    torch.manual_seed(0)
    model = MODELS.build(toy.localizer())
    model.init_weights()
    for name, value in model.backbone.blocks.named_parameters():
        if value.dim() == 2:
            torch.nn.init.normal_(value, std=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(3):
        for batch in make_batches(8):
            data = model.data_preprocessor(batch, True)
            optimizer.zero_grad()
            sum(model(**data, mode='loss').values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
            optimizer.step()
    path = tmp_path_factory.mktemp('toy') / 'localizer.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


@pytest.fixture(scope='session')
def shared_wrapper(trained):
    """The localizer beside its teacher; not to be changed."""
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=toy.localizer(),
            checkpoint=trained))
    model.init_weights()
    return model.eval()


@pytest.fixture(scope='session', autouse=True)
def _quiet() -> None:
    """One thread, and only errors on the terminal."""
    torch.set_num_threads(1)
    MMLogger.get_instance('mmengine', log_level='ERROR')
