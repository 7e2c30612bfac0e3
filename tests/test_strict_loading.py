"""Every entry loads a localizer whole, or names the file and the reason."""
import zipfile

from mmblockdrop.apis import init_localizer

import pytest
import torch
import toy
from mmengine.runner import Runner
from programs import load_program

test = load_program('test')
train = load_program('train')
export = load_program('export')
to_mmaction2 = load_program('model_converters/mmblockdrop_to_mmaction2')
HEAD = 'head.cls_head.weight'
BLOCK = 'backbone.blocks.0.attn.qkv.weight'


@pytest.fixture(autouse=True, scope='module')
def short_log():
    """mmengine asks compilers for their versions whenever it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Checkpoint of a toy localizer, with the state of its run."""
    folder = tmp_path_factory.mktemp('trained')
    toy.config(folder).dump(str(folder / 'config.py'))
    train.main([str(folder / 'config.py')])
    return folder / 'epoch_1.pth'


def other_keys(content):
    state = content['state_dict']
    for name in list(state):
        state[f'net.{name}'] = state.pop(name)


def no_head(content):
    for name in list(content['state_dict']):
        if name.startswith('head.'):
            del content['state_dict'][name]


def integers(content):
    state = content['state_dict']
    state[BLOCK] = state[BLOCK].int()


def not_a_number(content):
    content['state_dict'][BLOCK][1, 2] = float('nan')


def infinite(content):
    content['state_dict'][BLOCK][1, 2] = float('-inf')


def more_classes(content):
    state = content['state_dict']
    state[HEAD] = torch.zeros(10, *state[HEAD].shape[1:])


def no_weights(content):
    del content['state_dict']


def wrong_version(content):
    content['meta']['blockdrop'] = dict(
        version=9, stack='backbone.blocks', depth=4, rounds=[])


def wrong_block(content):
    content['meta']['blockdrop'] = dict(
        stack='backbone.blocks', depth=4, rounds=[dict(dropped=[7])])


#: What is wrong with the content, and words of the error beside the file.
DAMAGES = {
    other_keys: ('missing: backbone', 'unexpected: net.backbone'),
    no_head: ('missing: head.', ),
    integers: (BLOCK, 'int32 instead of float32'),
    not_a_number: (BLOCK, '1 of 768'),
    infinite: (BLOCK, '1 of 768'),
    more_classes: (HEAD, '(10, 16, 3) instead of (2, 16, 3)'),
    no_weights: ('holds no weights', 'state_dict'),
    wrong_version: ('version=9', ),
    wrong_block: ('rounds[0].dropped=[7]', '0 to 3')
}


def flip(path):
    """Change one byte of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda m: m.file_size)
        member_at = member.header_offset + 200
    content = bytearray(path.read_bytes())
    content[member_at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def config(folder, **changes):
    cfg = toy.config(folder / 'work', **changes)
    cfg.dump(str(folder / 'config.py'))
    return str(folder / 'config.py')


def run_test(folder, path):
    test.main([config(folder), str(path)])


def run_train(folder, path):
    train.main([config(folder, load_from=str(path))])


def run_resume(folder, path):
    train.main([config(folder), '--resume', str(path)])


def run_teacher(folder, path):
    toy.block_drop(folder / 'work', path).dump(str(folder / 'drop.py'))
    train.main([str(folder / 'drop.py')])


def run_own_script(folder, path):
    """mmengine's runner alone, in a project that has the hook."""
    cfg = toy.config(
        folder / 'work',
        load_from=str(path),
        custom_hooks=[dict(type='mmblockdrop.BlockDropHook')])
    Runner.from_cfg(cfg).train()


def run_api(folder, path):
    init_localizer(config(folder), path, device='cpu')


ENTRIES = [
    run_test, run_train, run_resume, run_teacher, run_own_script, run_api
]


@pytest.fixture
def damaged(trained, tmp_path):
    """Write the checkpoint with something wrong."""

    def write(damage=None, on_disk=None):
        content = torch.load(trained, weights_only=False)
        if damage is not None:
            damage(content)
        path = tmp_path / 'given.pth'
        torch.save(content, path)
        if on_disk is not None:
            on_disk(path)
        return path

    return write


@pytest.mark.parametrize('entry, damage', [
    (entry, damage) for entry in ENTRIES for damage in DAMAGES
    if entry is run_test or damage in (no_head, not_a_number, wrong_block)
], ids=lambda function: function.__name__)
def test_a_checkpoint_that_does_not_fit(damaged, tmp_path, entry, damage):
    path = damaged(damage)
    with pytest.raises(ValueError) as error:
        entry(tmp_path, path)
    for word in ('given.pth', *DAMAGES[damage]):
        assert word in str(error.value)


@pytest.mark.parametrize('on_disk', [flip, cut], ids=lambda d: d.__name__)
@pytest.mark.parametrize('entry', ENTRIES, ids=lambda e: e.__name__)
def test_a_file_that_is_damaged(damaged, tmp_path, entry, on_disk):
    path = damaged(on_disk=on_disk)
    with pytest.raises(Exception, match='given.pth') as error:
        entry(tmp_path, path)
    assert 'weights_only' not in str(error.value)


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda d: d.__name__)
def test_export_and_conversion(damaged, tmp_path, damage, capsys):
    path = damaged(damage)
    assert export.main([config(tmp_path), str(path), str(tmp_path / 'a')]) == 1
    said = capsys.readouterr().err
    for word in ('given.pth', *DAMAGES[damage]):
        assert word in said
    assert not (tmp_path / 'a').exists()
    if damage in (no_head, more_classes):
        return  # the encoder alone is converted
    with pytest.raises(ValueError, match='given.pth'):
        to_mmaction2.main([str(path), str(tmp_path / 'b.pth')])
    assert not (tmp_path / 'b.pth').exists()


@pytest.mark.parametrize('count', [1, 3])
def test_classes_of_data_and_model_differ(
        damaged, tmp_path, monkeypatch, count):
    names = ['dim', 'bright', 'loud'][:count]
    monkeypatch.setattr(toy.ToyVideos, 'metainfo', dict(classes=names))
    for entry in (run_test, run_train):
        with pytest.raises(ValueError) as error:
            entry(tmp_path, damaged())
        assert 'model.head.num_classes=2' in str(error.value)
        assert f'{count} classes' in str(error.value)


def test_classes_in_another_order(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(toy.ToyVideos, 'metainfo',
                        dict(classes=['bright', 'dim']))
    with pytest.raises(ValueError, match="'bright'.*'dim'"):
        run_test(tmp_path, damaged())
    run_train(tmp_path, damaged())  # learns the other order


def test_classes_of_a_checkpoint(damaged, tmp_path):

    def three(content):
        content['meta']['dataset_meta']['classes'] = ['a', 'b', 'c']

    with pytest.raises(ValueError, match='num_classes=2.*3 classes'):
        run_api(tmp_path, damaged(three))


def test_what_fits_is_loaded_where_the_config_says_so(
        damaged, tmp_path, trained):
    path = damaged(more_classes)
    cfg = toy.config(tmp_path / 'work', load_from=str(path),
                     load_partially=True, train_cfg=dict(max_epochs=0))
    runner = Runner.from_cfg(cfg)
    runner.register_hook(dict(type='mmblockdrop.StrictLoadHook'))
    runner.load_or_resume()
    theirs = torch.load(trained, weights_only=False)['state_dict']
    ours = runner.model.state_dict()
    assert torch.equal(ours[BLOCK], theirs[BLOCK])
    assert not torch.equal(ours[HEAD], theirs[HEAD])


@pytest.mark.parametrize('damage', [other_keys, not_a_number])
def test_what_cannot_be_loaded_in_part(damaged, tmp_path, damage):
    cfg = config(tmp_path, load_from=str(damaged(damage)), load_partially=True)
    with pytest.raises(ValueError, match='load_from=.*given.pth'):
        train.main([cfg])


def test_a_wrong_choice_of_loading(damaged, tmp_path):
    cfg = config(tmp_path, load_from=str(damaged()), load_partially='yes')
    with pytest.raises(ValueError, match="load_partially='yes'"):
        train.main([cfg])


def test_a_checkpoint_without_the_state_of_a_run(damaged, tmp_path):

    def weights_alone(content):
        del content['meta']['epoch']

    with pytest.raises(ValueError, match='--resume=.*epoch.*None'):
        run_resume(tmp_path, damaged(weights_alone))
