"""Records of any version are read, or rejected by key and value."""
from mmblockdrop.compression import (BlockStack, all_ids, record_of,
                                     removed_ids, replay, upgrade_record)
from mmblockdrop.compression.record import read_id, structure_class

import pytest
from torch import nn

VERSION_1 = dict(
    version=1, stack='blocks', depth=3, load_from=None, start_dropped=[2],
    rounds=[
        dict(round=1, state='aligned', dropped=[0]),
        dict(round=2, state='rejected', dropped=[1])
    ])


def model():
    net = nn.Module()
    net.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    return net


def test_version_1_knew_whole_blocks_only():
    record = upgrade_record(VERSION_1)
    assert record == dict(VERSION_1, version=2, kind='BlockStack')
    assert VERSION_1['version'] == 1 and 'kind' not in VERSION_1
    assert upgrade_record(record) == record
    assert removed_ids(VERSION_1) == [2, 0]
    assert all_ids(VERSION_1) == [0, 1, 2]
    net = model()
    assert replay(net, VERSION_1) == [2, 0]
    assert BlockStack(net, 'blocks').remaining == [1]


@pytest.mark.parametrize('change, key, value', [
    (dict(version=3), 'version', '3'),
    (dict(version='two'), 'version', 'two'),
    (dict(version=2, kind='Channels'), 'kind', 'Channels'),
    (dict(depth=4), 'blocks', '4'),
    (dict(stack='layers'), 'stack', 'layers'),
    (dict(rounds=[dict(dropped=[7])]), 'blocks', '7'),
])
def test_records_that_do_not_fit_are_rejected(change, key, value):
    with pytest.raises(ValueError) as error:
        replay(model(), {**VERSION_1, **change})
    assert key in str(error.value) and value in str(error.value)


@pytest.mark.parametrize('key', ['stack', 'depth', 'rounds'])
def test_a_missing_key_is_named(key):
    record = {k: v for k, v in VERSION_1.items() if k != key}
    with pytest.raises(ValueError, match=key):
        record_of(dict(meta=dict(blockdrop=record)))


def test_a_checkpoint_without_record():
    assert record_of(dict(state_dict={})) is None
    assert record_of(dict(state_dict={}, meta={})) is None


def test_ids_are_read_from_text():
    assert read_id('2', [0, 1, 2]) == 2
    assert read_id('blocks.1.mlp', ['blocks.1.mlp']) == 'blocks.1.mlp'
    with pytest.raises(ValueError, match="'3'"):
        read_id('3', [0, 1, 2])


@pytest.mark.parametrize('kind', ['', '../../x', 'a.b.c', 'NoStructure'])
def test_kinds_that_are_no_structure(kind):
    with pytest.raises(ValueError, match='kind of the record'):
        structure_class(kind)
