"""One thread, and tables that are computed once."""
import functools
from typing import Iterator

import pytest
import torch
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmaction')


@pytest.fixture(scope='module')
def quick_tables() -> Iterator[None]:
    """Position tables of the encoders, made in plain Python, made once."""
    from mmaction.models.backbones import vit_mae
    slow = vit_mae.get_sinusoid_encoding
    vit_mae.get_sinusoid_encoding = functools.lru_cache(maxsize=2)(slow)
    yield
    vit_mae.get_sinusoid_encoding = slow
