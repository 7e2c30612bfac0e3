"""A toy localizer on disk."""
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> str:
    """Checkpoint of a toy localizer whose blocks all matter."""
    torch.manual_seed(0)
    model = MODELS.build(toy.localizer())
    for value in model.backbone.blocks.parameters():
        if value.dim() == 2:
            torch.nn.init.normal_(value, std=0.5)
    torch.nn.init.constant_(model.head.reg_head.bias, 1.)
    path = tmp_path_factory.mktemp('toy') / 'localizer.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


@pytest.fixture(scope='session', autouse=True)
def _one_thread() -> None:
    """Tensors are too small for more."""
    torch.set_num_threads(1)
