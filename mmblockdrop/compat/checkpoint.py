"""Read checkpoints as data, without running code from them.

Defect: since torch 2.6 ``torch.load`` rejects everything that is not weights.
The checkpoints of mmengine 0.10.7 hold the logger's ``HistoryBuffer``, numpy
arrays and scalars, so ``Runner.resume`` fails. Before torch 2.6, and with
mmengine 0.11.0rc0, a checkpoint may run any code instead. To allow numpy's
functions by name, as torch advises, does not protect: a file can then lay an
array of objects over its own bytes, which ends the process or worse.

Patch: mmengine's checkpoint module reads files by :func:`load_file`. It checks
the archive and every name in it before anything is loaded. The names that
mmengine's checkpoints need beyond weights stand for classes of this module,
which check what they are given and make the value themselves.

Unnecessary with: a release of mmengine whose checkpoints torch accepts as
weights. Neither 0.10.7 nor 0.11.0rc0 does.
"""
import argparse
import io
import math
import os
import pickle
import pickletools
import re
import threading
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Dict, Iterator, List, Tuple, Union
from urllib.parse import urlparse

from packaging.version import Version

from .importing import after_import

#: numpy types of arrays and scalars: bool, integers, floating point, complex.
DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4',
          'f8', 'c8', 'c16')
#: Storages of tensors, and bytes per number.
STORAGES = dict(
    Double=8, Float=4, Half=2, BFloat16=2, Long=8, Int=4, Short=2, Char=1,
    Byte=1, Bool=1, ComplexDouble=16, ComplexFloat=8, Untyped=1)
#: Names of which ``torch.save`` makes weights and plain containers. torch
#: accepts more (sparse, nested and quantized tensors), which no checkpoint of
#: a localizer holds.
PLAIN = re.compile(
    r'collections\.(OrderedDict|Counter)|_codecs\.encode'
    r'|builtins\.(bytearray|set|complex)'
    r'|torch\.(Size|device|Tensor|nn\.parameter\.Parameter)'
    rf'|torch\.(cuda\.|storage\.)?({"|".join(STORAGES)})Storage'
    r'|torch\.(bool|u?int\d+|b?float\d+\w*|complex\d+)'
    r'|torch\._utils\._rebuild_(tensor(_v[23])?|parameter(_with_state)?)'
    r'|torch\._tensor\._rebuild_from_type_v2')
#: An archive may take this many times its own size, plus this many bytes.
#: ``torch.save`` does not compress.
INFLATION, SPARE = 4, 64 << 20
#: Tuples inside each other. Checkpoints have a handful; a key of a hundred
#: thousand overflows the stack of the process.
MAX_DEPTH = 200
#: Objects in a tuple. A few kB can name each tuple twice in the next.
MAX_SIZE = 10**6
#: Instructions of a pickle that change an object.
CHANGES = ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'BUILD')
#: What the files of torch before 1.6 begin with.
MAGIC = pickle.dumps(0x1950a86a20f9469cfc6c, protocol=2)

_lock = threading.RLock()


class _Rejected(ValueError):
    """What a file holds is not accepted. (torch adds no advice to it.)"""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise _Rejected(reason)


class _Marker:
    """Stands for a value until the file has given all of it."""
    __hash__ = None  # type: ignore[assignment]
    value: Any = None
    has_state = False

    def __setstate__(self, state: Any) -> None:
        _require(not self.has_state,
                 f'it sets the state of {type(self).__name__[1:]} twice')
        self.has_state = True
        self.value = self.read(state)

    def read(self, state: Any) -> Any:
        """The value."""
        raise NotImplementedError


class _Dtype(_Marker):
    """``numpy.dtype``, of a short list."""

    def __init__(self, code: Any = None, *flags: Any) -> None:
        import numpy as np
        _require(
            type(code) is str and code in DTYPES,
            f'it contains a numpy dtype {_shown(code)}; accepted are '
            f'{", ".join(DTYPES)}')
        self.value = np.dtype(code)

    def read(self, state: Any) -> Any:
        """Only the byte order is taken."""
        _require(
            type(state) is tuple and len(state) == 8 and state[0] == 3
            and state[1] in ('<', '>', '=', '|')
            and state[2:] == (None, None, None, -1, -1, 0),
            'it contains a numpy dtype of more than a byte order')
        return self.value.newbyteorder(state[1])


class _ArrayType:
    """``numpy.ndarray``, which a file may name and not call."""

    def __new__(cls, *args: Any) -> Any:
        raise _Rejected('it calls numpy.ndarray')


class _Array(_Marker):
    """Array that ``_reconstruct`` of numpy begins and a state completes."""

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        _require(kind is _ArrayType and shape == (0, ),
                 'it calls _reconstruct of numpy for more than an array')

    def read(self, state: Any) -> Any:
        """A copy of the bytes, which must be as many as shape and type say."""
        import numpy as np
        _require(
            type(state) is tuple and len(state) == 5 and state[0] == 1,
            "it contains a numpy array whose state is not numpy's")
        _, shape, dtype, fortran, content = state
        _require(
            type(shape) is tuple and len(shape) <= 32
            and all(type(size) is int and size >= 0 for size in shape),
            "it contains a numpy array whose shape is not numpy's")
        _require(
            type(dtype) is _Dtype and type(content) is bytes,
            "it contains a numpy array whose type or bytes are not numpy's")
        length = math.prod(shape) * dtype.value.itemsize
        _require(
            length == len(content),
            f'it contains a numpy array of shape {shape}, which takes '
            f'{length} bytes, with {len(content)} bytes')
        order = 'F' if fortran is True else 'C'
        values = np.frombuffer(content, dtype.value)
        return values.reshape(shape, order=order).copy(order)


def _scalar(dtype: Any, content: Any = None) -> Any:
    """numpy's scalar of a type and its bytes."""
    import numpy as np
    _require(
        type(dtype) is _Dtype and type(content) is bytes
        and len(content) == dtype.value.itemsize,
        'it contains a numpy scalar whose bytes are not of its type')
    return np.frombuffer(content, dtype.value)[0]


class _History(_Marker):
    """``HistoryBuffer`` of mmengine."""

    def read(self, state: Any) -> Any:
        """Its two arrays; the statistics stay those of the class."""
        from mmengine.logging.history_buffer import HistoryBuffer
        state = dict(state)
        state.pop('statistics_methods', None)
        arrays = [state.get('_log_history'), state.get('_count_history')]
        _require(
            len(state) == 3 and type(state.get('max_length')) is int
            and all(type(a) is _Array and a.has_state for a in arrays)
            and arrays[0].value.shape == arrays[1].value.shape
            and arrays[0].value.ndim == 1,
            "it contains a HistoryBuffer that is not mmengine's")
        history = HistoryBuffer.__new__(HistoryBuffer)
        history.__setstate__(
            dict(
                max_length=state['max_length'],
                _log_history=arrays[0].value,
                _count_history=arrays[1].value))
        return history


def _statistic(owner: Any, name: Any) -> Any:
    """``getattr``, by which files refer to methods of ``HistoryBuffer``."""
    statistics = ('min', 'max', 'current', 'mean')
    _require(
        owner is _History and name in statistics,
        f'it fetches {_shown(name)} by getattr; accepted are '
        f'{", ".join(statistics)} of HistoryBuffer')
    return name


def _empty_bytes() -> bytes:
    """``bytes``, by which files give the content of an empty array."""
    return b''


#: What names in a file stand for. numpy 1 and 2 write different ones.
MARKERS: Dict[str, Any] = {
    'numpy.ndarray': _ArrayType,
    'numpy.dtype': _Dtype,
    'numpy.core.multiarray._reconstruct': _Array,
    'numpy._core.multiarray._reconstruct': _Array,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'builtins.getattr': _statistic,
    'builtins.bytes': _empty_bytes,
    'argparse.Namespace': argparse.Namespace,  # settings, as VideoMAE keeps
}


def load_file(file: Union[str, Path, BinaryIO],
              map_location: Any = 'cpu') -> Any:
    """Load a checkpoint as data.

    Tensors, numbers, text, plain containers, numpy arrays and scalars of
    numbers, mmengine's ``HistoryBuffer`` and ``argparse.Namespace`` are
    accepted, and what the user has named to
    ``torch.serialization.add_safe_globals``.

    Args:
        file: Path, or an open binary file.
        map_location: As for ``torch.load``. Defaults to the CPU.

    Returns:
        Its content.

    Raises:
        OSError: The file cannot be opened.
        pickle.UnpicklingError: It contains anything else, is damaged, takes
            far more memory than its size, or is not a checkpoint. Names the
            file and what was found.
    """
    if isinstance(file, (str, Path)):
        name, stream = str(file), open(file, 'rb')
    else:
        name, stream = str(getattr(file, 'name', 'the checkpoint')), file
    try:
        if not name.endswith('.safetensors'):  # tensors and text alone
            _check(stream)
        stream.seek(0)
        content = _load(file, map_location)
        return _completed(content, {})
    except Exception as error:  # a damaged file may raise anything
        raise pickle.UnpicklingError(
            f'{name} cannot be loaded, and none of its code has run: '
            f'{_reason(error)}') from None
    finally:
        if stream is not file:
            stream.close()


def _reason(error: Exception) -> str:
    """What an error says, without torch's advice to drop the protection."""
    lines = str(error).split('WeightsUnpickler error:')[-1].strip()
    text = lines.splitlines()[0] if lines else ''
    if isinstance(error, _Rejected):
        return text
    if 'weights_only' in text or 'safe_globals' in text:
        text = 'it is not what torch.save writes'
    return f'{type(error).__name__}: {text}'


def _check(stream: BinaryIO) -> None:
    """Check archive, checksums and names, before anything is loaded."""
    import tarfile
    start = stream.read(len(MAGIC))
    if start.startswith(b'PK\x03\x04'):
        _check_archive(stream)
        return
    _require(start == MAGIC, 'it is not a checkpoint that torch has written')
    stream.seek(0)
    _require(not tarfile.is_tarfile(stream), 'it is a tar archive')
    stream.seek(0)
    for _ in range(5):  # magic number, version, system, content, storages
        _check_pickle(stream)


def _check_archive(stream: BinaryIO) -> None:
    """Check a zip archive, which torch writes since version 1.6."""
    with zipfile.ZipFile(stream) as archive:
        size = stream.seek(0, os.SEEK_END)
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        _require(
            unpacked <= INFLATION * size + SPARE,
            f'its archive of {size} bytes takes {unpacked} bytes unpacked')
        paths = [member.filename.partition('/') for member in members]
        _require(
            len({path[0] for path in paths}) == 1
            and len({path[2].lower() for path in paths}) == len(paths),
            'its archive has a name twice, or more than one folder')
        records = {path[2]: member for path, member in zip(paths, members)}
        _require('constants.pkl' not in records,
                 'it is a TorchScript archive, not a checkpoint')
        damaged = archive.testzip()
        _require(damaged is None,
                 f'it is damaged: the checksum of {damaged} is wrong')
        _require('data.pkl' in records, 'its archive has no data.pkl')
        content = io.BytesIO(archive.read(records['data.pkl']))
    for storage in _check_pickle(content):
        known = type(storage) is tuple and len(storage) == 5
        _, kind, key, _, numbers = storage if known else [''] * 5
        record = records.get(f'data/{key}')
        found = record.file_size if record else None
        kind = str(kind).rpartition('.')[2].removesuffix('Storage')
        _require(
            type(numbers) is int and found is not None
            and found == numbers * STORAGES.get(kind, 0),
            f'its record data/{_shown(key)} of {found} bytes is said to hold '
            f'{_shown(numbers)} numbers of type {_shown(kind)}')


class _Item:
    """What the check of a pickle knows of an object.

    Args:
        depth: Of tuples inside each other, calls with them included.
        size: Objects in a tuple, those inside its tuples included.
        constant: Number, text or name; items of a tuple of them.
    """
    __slots__ = ('depth', 'size', 'constant')

    def __init__(self, depth: int, size: int, constant: Any) -> None:
        self.depth, self.size, self.constant = depth, size, constant


def _check_pickle(stream: BinaryIO) -> List[Any]:
    """Check names, calls and tuples; return the storages it asks for."""
    own = {_name(entry) for entry in _allowed_by_user()}
    stack: List[Any] = []  # items; None is a mark
    memo: Dict[int, _Item] = {}
    storages = []
    for code, argument, _ in pickletools.genops(stream):
        if code.name == 'MARK':
            stack.append(None)
            continue
        if code.name in ('BINPUT', 'LONG_BINPUT', 'PUT'):
            memo[argument] = stack[-1]
            continue
        if code.name in ('BINGET', 'LONG_BINGET', 'GET'):
            stack.append(memo[argument])
            continue
        if code.name in ('GLOBAL', 'INST'):
            argument = _modern(argument.replace(' ', '.'))
            _require(
                _is_plain(argument) or argument in own,
                f'it contains {_shown(argument)}; only tensors, numbers, text '
                'and plain containers are read')
        before = code.stack_before
        taken: List[_Item] = []  # the last one first
        count = len(before)
        if pickletools.markobject in before:
            count = before.index(pickletools.markobject)
            while (item := stack.pop()) is not None:
                taken.append(item)
        for _ in range(count):
            taken.append(stack.pop())
        depth = max((item.depth for item in taken), default=0)
        size = max((item.size for item in taken), default=1)
        if code.name == 'BINPERSID':
            storages.append(taken[0].constant)
        elif code.name in ('REDUCE', 'NEWOBJ'):
            _require(
                type(taken[1].constant) is str, 'it calls what is not a name')
        elif code.name.startswith('TUPLE'):
            depth, size = depth + 1, 1 + sum(item.size for item in taken)
            _require(
                depth <= MAX_DEPTH and size <= MAX_SIZE,
                f'it nests tuples more than {MAX_DEPTH} deep, or {MAX_SIZE} '
                'objects in them')
            argument = [item.constant for item in reversed(taken)]
            argument = tuple(None if type(c) is tuple else c for c in argument)
        if code.name in CHANGES:
            target = taken[-1]
            target.depth, target.size = depth, size
            stack.append(target)
        else:
            stack += [_Item(depth, size, argument) for _ in code.stack_after]
    return storages


def _shown(value: Any) -> str:
    """Text or number from a file, as an error may show it."""
    if type(value) not in (str, int):
        return f'({type(value).__name__})'
    return str(value)[:100].encode('unicode_escape').decode()


def _modern(name: str) -> str:
    """The name in Python 3; pickles of protocol 2 give that of Python 2."""
    return re.sub(r'^__builtin__\.', 'builtins.', name)


def _is_plain(name: str) -> bool:
    return name in MARKERS or PLAIN.fullmatch(name) is not None


def _name(entry: Any) -> str:
    """Name under which torch knows what the user has allowed."""
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


def _allowed_by_user() -> List[Any]:
    """What the user has named to torch, but for what is checked here."""
    import torch
    known = getattr(torch.serialization, 'get_safe_globals', list)()
    return [entry for entry in known if _name(entry) not in MARKERS]


def _load(file: Any, map_location: Any) -> Any:
    """``torch.load`` with markers."""
    import torch
    if Version(torch.__version__) < Version('2.6'):
        return torch.load(
            file, map_location, pickle_module=_Pickle, weights_only=False)
    with _markers():
        return torch.load(file, map_location, weights_only=True)


@contextmanager
def _markers() -> Iterator[None]:
    """Have torch 2.6 and later read certain names as markers."""
    from torch.serialization import (add_safe_globals, clear_safe_globals,
                                     get_safe_globals)
    with _lock:
        known = get_safe_globals()
        allowed = _allowed_by_user()
        clear_safe_globals()
        add_safe_globals(
            [*allowed, *((marker, name) for name, marker in MARKERS.items())])
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(known)


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """For torch before 2.6, whose own unpickler takes no further names."""
    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        path = _modern(f'{module}.{name}')
        _require(
            _is_plain(path) or path in map(_name, _allowed_by_user()),
            f'it contains {path}')
        return MARKERS.get(path) or super().find_class(module, name)

    def load_build(self) -> None:
        import torch
        _require(
            isinstance(self.stack[-2], (_Marker, argparse.Namespace,
                                        OrderedDict, torch.Tensor)),
            f'it sets attributes of {type(self.stack[-2]).__name__}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


class _Pickle:
    """What ``torch.load`` takes in the place of the module pickle."""
    Unpickler = _Unpickler

    @staticmethod
    def load(file: BinaryIO, **kwargs) -> Any:
        return _Unpickler(file, **kwargs).load()


def _completed(value: Any, seen: Dict[int, Tuple[Any, Any]]) -> Any:
    """Put values in the place of markers, in containers and attributes."""
    if isinstance(value, _Marker):
        _require(value.value is not None,
                 f'it contains {type(value).__name__[1:]} without a state')
        return value.value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value
    if type(value) is tuple:
        completed = tuple(_completed(item, seen) for item in value)
        seen[id(value)] = value, completed
        return completed
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _completed(item, seen)
    elif isinstance(value, list):
        value[:] = [_completed(item, seen) for item in value]
    attributes = getattr(value, '__dict__', None)
    if type(attributes) is dict:
        _completed(attributes, seen)
    return value


class _CheckedTorch(ModuleType):
    """torch as mmengine's checkpoint module sees it."""
    load = staticmethod(load_file)

    def __getattr__(self, name: str) -> Any:
        import torch
        return getattr(torch, name)


def _load_url(url: str,
              model_dir: Any = None,
              map_location: Any = None,
              progress: bool = True) -> Any:
    """Download where ``torch.hub`` does, unless it is there; then load."""
    import torch
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return load_file(path, map_location)


def _read_by_load_file(checkpoint: ModuleType) -> None:
    """Replace the two functions through which mmengine reads files."""
    checkpoint.torch = _CheckedTorch('torch')  # type: ignore[attr-defined]
    checkpoint.load_url = _load_url  # type: ignore[attr-defined]


def patch() -> None:
    """Wait for mmengine's checkpoint module."""
    after_import('mmengine.runner.checkpoint', _read_by_load_file)
