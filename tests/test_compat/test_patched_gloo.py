"""Several processes on a machine without CUDA."""
import mmengine.dist as dist
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from patches_kit import Toy, free_port


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
    unpatched = MMDistributedDataParallel.__init__.__wrapped__
    with pytest.raises(ValueError, match='device_ids'):
        unpatched(
            MMDistributedDataParallel.__new__(MMDistributedDataParallel),
            Toy(),
            device_ids=[0])
