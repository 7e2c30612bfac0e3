"""Repair in several processes is that of one."""
import copy

from mmblockdrop.compression import BlockStack, LinearRepair
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from two_processes import in_two_processes

#: Odd, so that the sampler gives one to both processes.
VIDEOS = 5


@pytest.fixture(scope='module')
def teacher():
    """A localizer whose blocks do something."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    model = MODELS.build(toy.localizer())
    for value in model.backbone.parameters():
        if value.dim() == 2:
            torch.nn.init.normal_(value, std=0.3)
    return model.eval()


def run(localizer, batch):
    """A pass of a localizer."""
    localizer(**localizer.data_preprocessor(batch, False), mode='tensor')


def repaired(teacher, size):
    """Entries of the record and the weights after a repair."""
    torch.set_num_threads(1)
    student = copy.deepcopy(teacher)
    structure = BlockStack(student, 'backbone.blocks')
    structure.remove(1)
    batches = Runner.build_dataloader(
        dict(toy.loader(VIDEOS, 0), batch_size=size))
    entries = LinearRepair(refit=False)(student, teacher, structure, [1],
                                        batches, run)
    return dict(
        entries=entries,
        weights={
            name: value.double().flatten().tolist()
            for name, value in student.backbone.named_parameters()
            if 'blocks.0' in name
        })


def test_two_processes_are_as_one(teacher, tmp_path):
    alone = repaired(teacher, 1)
    first, second = in_two_processes(
        tmp_path, lambda rank: repaired(teacher, 1))
    assert first == second
    for one, two in zip(alone['entries'], first['entries']):
        assert one['tokens'] == two['tokens']
        assert one['ridge'] == two['ridge'] and one['kept'] == two['kept']
        assert one.get('with') == two.get('with')
        for key in ('error_before', 'error_after'):
            assert one[key] == pytest.approx(two[key], rel=1e-4)
    for name, values in alone['weights'].items():
        assert values == pytest.approx(first['weights'][name], abs=1e-4)


def test_the_size_of_batches_does_not_matter(teacher):
    one, two = repaired(teacher, 1), repaired(teacher, 2)
    for a, b in zip(one['entries'], two['entries']):
        assert a['tokens'] == b['tokens']
        assert a['error_after'] == pytest.approx(b['error_after'], rel=1e-4)
