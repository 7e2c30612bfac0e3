"""Damaged and hostile checkpoints end in an error that names the file.

The files are loaded in a process of their own, which must not die.
"""
import json
import pickle
import random
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from patches_kit import ROOT, Calls, start, toy_runner

# Prints, as JSON, what becomes of each file of a folder: '' where it loads,
# or the error. Arrays and tensors are looked at, which is what would read
# outside of them.
LOAD = r'''
import json, os, warnings
warnings.simplefilter('ignore')
import mmblockdrop
import numpy, torch
from mmblockdrop.compat.checkpoint import load_file

def look(value, depth=0):
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        value.tobytes(), repr(value)
    elif isinstance(value, torch.Tensor) and value.numel() < 10**6:
        value.clone(), repr(value)
    elif isinstance(value, dict) and depth < 9:
        [look(part, depth + 1) for part in value.values()]
    elif isinstance(value, (list, tuple)) and depth < 9:
        [look(part, depth + 1) for part in value]
    elif hasattr(value, '__dict__') and depth < 9:
        look(vars(value), depth + 1)

if os.environ.get('TORCH_VERSION'):
    torch.__version__ = os.environ['TORCH_VERSION']
folder = os.environ['FOLDER']
for name in sorted(os.listdir(folder)):
    print(json.dumps(name), flush=True)
    try:
        look(load_file(os.path.join(folder, name)))
        error = ''
    except Exception as caught:
        error = f'{type(caught).__name__}: {caught}'
    print(json.dumps(error), flush=True)
'''


MAKE_ARRAY, ARRAY_ARGS, _ = np.zeros(0).__reduce__()
MAKE_SCALAR = np.float64(0).__reduce__()[0]


def array(shape, dtype, content, fortran=False):
    """An array with a state of any kind."""
    return Calls(
        MAKE_ARRAY, *ARRAY_ARGS, state=(1, shape, dtype, fortran, content))


def tensor(offset, size, stride):
    """A view of four numbers, wherever it may lie."""
    storage = torch.zeros(4)._typed_storage()
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size,
                 stride, False, OrderedDict())


pytestmark = pytest.mark.slow
F8 = np.dtype('f8')
#: What is put into a checkpoint, and what the error says of it.
CONTENTS = dict(
    object_array=(np.array([{}]), 'dtype O8'),
    object_array_called=(
        Calls(np.ndarray, (1, ), 'O', b'@AAAAA\0\0'), 'numpy.ndarray'),
    object_scalar=(Calls(MAKE_SCALAR, np.dtype('O'), b'\0' * 8), 'dtype O8'),
    text_array=(np.array(['a', 'bc']), 'dtype U2'),
    structured=(np.zeros(1, [('a', 'i4')]), 'dtype V4'),
    item_size=(array((1, ), Calls(
        np.dtype, 'f8', False, True,
        state=(3, '<', None, None, None, 4096, 8, 0)), b'\0' * 8), 'dtype'),
    subarray=(array((1, ), Calls(
        np.dtype, 'f8', False, True,
        state=(3, '<', (F8, (9, )), None, None, -1, -1, 0)), b'\0' * 8),
        'dtype'),
    dtype_of_nothing=(Calls(np.dtype), 'dtype'),
    short=(array((10, ), F8, b'\0' * 10), 'takes 80 bytes'),
    long=(array((1, ), F8, b'\0' * 16), 'with 16 bytes'),
    overflow=(array((2**62, 4), F8, b''), 'takes'),
    overflow_to_none=(array((2**32, 2**32), np.dtype('u1'), b''), 'takes'),
    huge=(array((2**62, 0), F8, b''), ''),
    negative=(array((-1, -1), F8, b'\0' * 8), 'shape'),
    float_shape=(array((1., ), F8, b'\0' * 8), 'shape'),
    dimensions=(array((1, ) * 65, F8, b'\0' * 8), 'shape'),
    content=(array((1, ), F8, [1.]), 'array'),
    no_content=(Calls(MAKE_ARRAY, *ARRAY_ARGS), 'Array without a state'),
    no_dtype=(array((1, ), 'f8', b'\0' * 8), 'array'),
    other_type=(Calls(MAKE_ARRAY, torch.Tensor, (0, ), b'b'), 'numpy'),
    begun_with_shape=(Calls(MAKE_ARRAY, np.ndarray, (9, ), b'b'), 'numpy'),
    short_scalar=(Calls(MAKE_SCALAR, F8, b'\0' * 4), 'scalar'),
    scalar_of_nothing=(Calls(MAKE_SCALAR, F8), 'scalar'),
    history_of_text=(Calls(
        HistoryBuffer, state=dict(
            max_length=1, _log_history='a', _count_history='a')), 'History'),
    history_with_more=(Calls(
        HistoryBuffer, state=dict(
            max_length=1, _log_history=np.ones(1), _count_history=np.ones(1),
            more=1)), 'History'),
    history_of_arrays=(Calls(HistoryBuffer, np.ones(1), np.ones(1)), ''),
    array_in_set=({Calls(MAKE_ARRAY, *ARRAY_ARGS)}, 'unhashable'),
    nested_tensor=(Calls(torch._utils._rebuild_nested_tensor,
                         torch.ones(4)), '_rebuild_nested_tensor'),
    tensor_beyond=(tensor(0, (5, ), (1, )), 'storage'),
    tensor_offset=(tensor(2**61, (1, ), (1, )), ''),
    tensor_strides=(tensor(3, (4, ), (-1, )), ''),
    tensor_overflow=(tensor(0, (2**40, 2**40), (0, 0)), ''),
)


def write_pickle(path: Path, content: bytes) -> None:
    """Archive that holds only a pickle."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', content)
        archive.writestr('archive/version', '3\n')


def pickled(value) -> bytes:
    """Its pickle without beginning and end."""
    return pickle.dumps(value, 2)[2:-1]


def hostile_pickles() -> dict:
    """What no pickler writes, and what the error says of it."""
    start = b'\x80\x02' + pickled(Calls(MAKE_ARRAY, *ARRAY_ARGS))
    states = [
        pickled((1, (n, ), F8, False, b'\0' * 8 * n)) + b'b' for n in (1, 2)
    ]
    doubled = b'\x80\x02}N' + b'q\0h\0\x86' * 150
    deep = b'\x80\x02}N' + b'\x85' * 10**6 + b'Ns.'
    chain = b'\x80\x02}Nq\0' + b'h\0\x85q\0' * 10**5 + b'Ns.'
    return dict(
        two_states=(start + b''.join(states) + b'.', 'twice'),
        two_byte_orders=(
            b'\x80\x02' + pickled(F8) + pickled(
                (3, '>', None, None, None, -1, -1, 0)) + b'b.', 'twice'),
        deep_key=(deep, 'deep'),
        doubled_key=(doubled + b'Ns.', 'objects'),
        doubled_call=(doubled + b')R.', 'objects'),
        called_number=(b'\x80\x02K\x01)R.', 'calls'),
        deep_chain=(chain, 'deep'),
        deep_list=(b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.', ''),
        no_end=(b'\x80\x02}', ''),
        unknown_name=(b'\x80\x02cwebbrowser\nopen\nX\x01\0\0\0aR.',
                      'webbrowser.open'))


PICKLES = hostile_pickles()


def write_contents(folder: Path) -> None:
    for name, (content, _) in CONTENTS.items():
        for kind in ('zip', 'legacy'):
            torch.save(
                dict(state_dict={}, x=content),
                folder / f'{name}.{kind}',
                _use_new_zipfile_serialization=kind == 'zip')
    for name, (content, _) in PICKLES.items():
        write_pickle(folder / f'{name}.pickle', content)


def write_archives(folder: Path) -> None:
    """Archives that are damaged, or not those of a checkpoint."""
    good = folder / 'good.pth'
    weights = torch.arange(100.)
    torch.save(dict(state_dict=dict(a=weights)), good)
    whole = good.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(weights.numpy().tobytes()) + 7] ^= 1
    (folder / 'flipped.pth').write_bytes(flipped)
    (folder / 'cut.pth').write_bytes(whole[:-100])
    (folder / 'text.pth').write_bytes(b'hello')
    (folder / 'empty.pth').write_bytes(b'')
    with zipfile.ZipFile(good) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(folder / 'bomb.pth', 'w',
                         zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr('good/data/1', bytes(100 << 20))
    with zipfile.ZipFile(folder / 'twice.pth', 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr('good/DATA.PKL', b'\x80\x02}.')
    data = next(name for name in members if name.endswith('data.pkl'))
    with zipfile.ZipFile(folder / 'more.pth', 'w') as archive:
        for name, content in members.items():
            if name == data:  # 100 numbers become 2**28
                content = content.replace(b'Kd', b'J\0\0\0\x10')
            archive.writestr(name, content)
    torch.jit.script(torch.nn.Identity()).save(folder / 'script.pth')
    with tarfile.open(folder / 'tar.pth', 'w') as archive:
        archive.add(good, 'storages')


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A few bytes changed, removed or repeated."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(2, len(changed))
        kind = generator.randrange(4)
        if kind == 0:
            changed[place] = generator.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del changed[place:place + generator.randint(1, 8)]
        else:
            other = generator.randrange(2, len(content))
            changed[place:place] = content[other:other +
                                           generator.randint(1, 40)]
    return bytes(changed)


def write_mutations(folder: Path, whole: Path) -> None:
    """The pickle of a checkpoint mutated, the checksum right; whole files."""
    generator = random.Random(0)
    with zipfile.ZipFile(whole) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    for number in range(300):
        path = folder / f'{number}.content'
        with zipfile.ZipFile(path, 'w') as archive:
            for name, content in members.items():
                if name.endswith('data.pkl'):
                    content = mutated(content, generator)
                archive.writestr(zipfile.ZipInfo(name), content)
    legacy = folder / 'legacy.pth'
    torch.save(
        torch.load(whole, weights_only=False),
        legacy,
        _use_new_zipfile_serialization=False)
    for source, kind in (whole, 'file'), (legacy, 'legacy_file'):
        for number in range(150):
            (folder / f'{number}.{kind}').write_bytes(
                mutated(source.read_bytes(), generator))


@pytest.fixture(scope='module')
def processes(tmp_path_factory) -> dict:
    """Processes that load all files, as with two versions of torch."""
    folder = tmp_path_factory.mktemp('hostile')
    runner = toy_runner(tmp_path_factory.mktemp('trained'), 'trained', 1)
    runner.message_hub.update_info('best_score', np.float64(0.5))
    runner.message_hub.update_info('curve', np.arange(3.))
    runner.train()
    trained = Path(runner.work_dir) / 'epoch_1.pth'
    write_contents(folder)
    write_archives(folder)
    write_mutations(folder, trained)
    processes = {
        version: start(LOAD, FOLDER=str(folder), TORCH_VERSION=version)
        for version in ('', '2.1.2+cpu')
    }
    yield processes
    for process in processes.values():
        process.kill()


@pytest.fixture(scope='module', params=['', '2.1.2+cpu'])
def found(request, processes) -> dict:
    """Names of the files, and the error or '' of each."""
    process = processes[request.param]
    out, errors = process.communicate(timeout=300)
    lines = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0, (process.returncode, lines[-1:], errors)
    return dict(zip(lines[::2], lines[1::2]))


def test_errors_name_the_file(found):
    for name, error in found.items():
        if error:
            assert error.startswith('UnpicklingError') and name in error
            assert 'weights_only' not in error and 'safe_globals' not in error


@pytest.mark.parametrize('name', CONTENTS)
@pytest.mark.parametrize('kind', ['zip', 'legacy'])
def test_hostile_content(found, name, kind):
    error = found[f'{name}.{kind}']
    assert error and CONTENTS[name][1] in error


@pytest.mark.parametrize('name', PICKLES)
def test_hostile_pickle(found, name):
    error = found[f'{name}.pickle']
    assert error and PICKLES[name][1] in error


@pytest.mark.parametrize('name, text', [
    ('flipped', 'checksum of good/data/0'),
    ('bomb', 'bytes unpacked'),
    ('twice', 'twice'),
    ('more', 'data/0 of 400 bytes'),
    ('script', 'TorchScript'),
    ('text', 'not a checkpoint'),
    ('empty', 'not a checkpoint'),
    ('tar', 'not a checkpoint'),
    ('cut', 'zip'),
])
def test_damaged_archive(found, name, text):
    assert text in found[f'{name}.pth']
    assert found['good.pth'] == found['legacy.pth'] == ''


@pytest.mark.parametrize('kind, count', [
    ('content', 300),
    ('file', 150),
    ('legacy_file', 150),
])
def test_mutations_end_no_process(found, kind, count):
    errors = [v for name, v in found.items() if name.endswith(f'.{kind}')]
    assert len(errors) == count
    assert sum(map(bool, errors)) > count / 2


def test_nothing_else_reads_pickles():
    """Every checkpoint goes through the one reader."""
    readers = [
        path.relative_to(ROOT).as_posix()
        for folder in ('mmblockdrop', 'tools', 'demo')
        for path in (ROOT / folder).rglob('*.py')
        if any(call in path.read_text() for call in (
            'torch.load(', 'pickle.load', 'allow_pickle=True', 'load_url('))
    ]
    assert readers == ['mmblockdrop/compat/checkpoint.py']
