"""Reads mutated files, one process per kind; see ``test_fuzzing.py``.

    python fuzz_kit.py FOLDER COUNT

Prints as JSON, by kind: how its process ended, how many files gave a result
and how many an error, and the first errors that do not name their file.
"""
import copy
import io
import json
import os
import random
import signal
import sys
import traceback
import warnings
import zipfile
from pathlib import Path

warnings.simplefilter('ignore')

from mmblockdrop.compression import load_localizer  # noqa: E402
from mmblockdrop.data import UntrimmedVideoDataset  # noqa: E402
from mmblockdrop.rounds.resume import read_record  # noqa: E402
from mmblockdrop.scorers.partial_scores import PartialScores  # noqa: E402
from mmblockdrop.utils.video import Video  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

#: Values that a JSON file may hold where another is expected.
ODD = [
    None, True, False, 0, -1, 1.5, 10**400, 1e308, -1e308, float('nan'),
    float('inf'), '', 'x', '../../outside', '/etc/passwd', 'a\0b', 'é' * 999,
    '\ud800', [], {}, [[]], [1], [None], [2, 1], [1, 2, 3], {'x': {}},
    {'segment': 1}, [['a', 'b']], list(range(99))
]
SECONDS = 240


def places(node, path=()):
    """Paths to everything in a tree of mappings and lists."""
    found = [path] if path else []
    items = (node.items() if isinstance(node, dict) else
             enumerate(node) if isinstance(node, list) else ())
    for key, value in items:
        found += places(value, (*path, key))
    return found


def mutate_tree(tree, rng):
    """Replace, remove, rename or double a few places of a tree."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = places(tree)
        if not found:
            return rng.choice(ODD)
        *parents, key = rng.choice(found)
        node = tree
        for step in parents:
            node = node[step]
        action = rng.randrange(6)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[rng.choice(('', 'x', '../y', 'subset', '0'))] = node.pop(key)
        elif action == 2 and isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        else:
            node[key] = copy.deepcopy(rng.choice(ODD))
    return rng.choice(ODD) if rng.random() < 0.02 else tree


def mutate_bytes(content, rng):
    """Flip, cut, zero, double or insert some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        place = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 4, 16, 200))
        action = rng.randrange(6)
        if action == 0:
            data[place:place + size] = bytes(
                rng.randrange(256) for _ in range(size))
        elif action == 1 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif action == 2:
            data[place:place + size] = bytes(size)
        elif action == 3:
            data[place:place] = data[place:place + size]
        elif action == 4:
            del data[place:place + size]
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


# ------------------------------------------------------------------- kinds
def annotations(folder, rng):
    """Annotations, as a tree and as bytes."""
    actions = [dict(segment=[1., 3.], label='jump'),
               dict(segment=[4, 6], label='run')]
    tree = dict(version=1, database={
        'a': dict(subset='training', duration=10., fps=10., frame=100,
                  annotations=actions),
        'b': dict(subset='validation', duration=8, fps=10.,
                  annotations=actions[:1])})
    path = folder / 'annotations.json'
    if rng.random() < 0.6:
        path.write_text(json.dumps(mutate_tree(tree, rng)))
    else:
        path.write_bytes(mutate_bytes(json.dumps(tree).encode(), rng))

    def read():
        dataset = UntrimmedVideoDataset(
            ann_file=str(path), data_prefix={}, window_size=8, pipeline=[],
            serialize_data=False, bad_segments=rng.choice(('drop', 'error')))
        for index in range(len(dataset)):
            dataset.get_data_info(index)

    return path, read


class Blocks(nn.Module):
    """Four blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))


RECORD = dict(
    version=2, kind='BlockStack', stack='blocks', depth=4, ids=[0, 1, 2, 3],
    start_dropped=[1], metric='tad/mAP', lora=None,
    baseline=dict(metric=0.5, metrics={'tad/mAP': 0.5}, blocks_left=[0, 2, 3]),
    rounds=[dict(round=1, state='aligned', dropped=[2], blocks_left=[0, 3],
                 scores={'0': 0.1, '2': 0.4, '3': 0.2}, epochs={'0': 0.4},
                 metric_before=0.4, metric_after=0.4, best_epoch=0)])


def checkpoint_content(record):
    state = {k: v for k, v in Blocks().state_dict().items()
             if k[7] not in '12'}
    return dict(state_dict=state, meta=dict(
        epoch=1, blockdrop=record, dataset_meta=dict(classes=('a', 'b')),
        array=np.arange(4.)))


def load(path):
    """Read a checkpoint as ``init_localizer`` does."""
    return path, lambda: load_localizer(Blocks(), str(path))


def record(folder, rng):
    """A whole checkpoint with a mutated record."""
    path = folder / 'round_1.pth'
    torch.save(checkpoint_content(mutate_tree(RECORD, rng)), path)
    return load(path)


def record_file(folder, rng):
    """The record of a run in its work directory."""
    path = folder / 'blockdrop.json'
    if rng.random() < 0.7:
        path.write_text(json.dumps(mutate_tree(RECORD, rng)))
    else:
        path.write_bytes(mutate_bytes(json.dumps(RECORD).encode(), rng))
    return path, lambda: read_record(folder)


def checkpoint(folder, rng):
    """A damaged zip file, or a whole one with a damaged pickle."""
    path, buffer = folder / 'round_1.pth', io.BytesIO()
    torch.save(checkpoint_content(RECORD), buffer)
    if rng.random() < 0.5:
        path.write_bytes(mutate_bytes(buffer.getvalue(), rng))
        return load(path)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, 'w') as new:
        victim = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == victim and content:
                content = mutate_bytes(content, rng)
            new.writestr(name, content)
    return load(path)


def partial_scores(folder, rng):
    """What scoring keeps on disk; damaged files are passed over."""
    inside = folder / 'blockdrop_scoring'
    scores = PartialScores(inside, ['key'], every=0.)
    for state in (dict(a=torch.ones(2)), dict(a=torch.zeros(2))):
        scores.add(state)
    path = rng.choice(sorted(inside.iterdir()))
    content = path.read_bytes()
    if rng.random() < 0.4:
        tree = dict(key=scores.key, first=0, states=[1, [2]])
        torch.save(mutate_tree(tree, rng), path)
    else:
        path.write_bytes(mutate_bytes(content, rng))
    if rng.random() < 0.2:
        path.rename(path.with_name(rng.choice(
            ('rank0_x.pt', 'rank0_99999999.pt', 'rank0_00000000.pt'))))
    return path, PartialScores(inside, ['key']).read


def video(folder, rng):
    """A short video in one of three containers."""
    source = rng.choice(sorted((folder.parent / 'videos').iterdir()))
    path = folder / source.name
    path.write_bytes(mutate_bytes(source.read_bytes(), rng))

    def read():
        opened = Video(path)
        opened.read([0, len(opened) // 2, len(opened) - 1])
        opened.times()

    return path, read


KINDS = (annotations, record, record_file, checkpoint, partial_scores, video)


def run(kind, folder, count):
    """Read mutated files of a kind."""
    result = dict(results=0, errors=0, unnamed=[])
    for number in range(count):
        rng = random.Random(f'{kind.__name__} {number}')
        path, read = kind(folder, rng)
        (folder / 'number').write_text(str(number))
        try:
            read()
            result['results'] += 1
        except Exception as error:
            result['errors'] += 1
            if path.name not in str(error):
                where = traceback.extract_tb(error.__traceback__)[-1]
                result['unnamed'].append(
                    f'{number}: {type(error).__name__}: {error} '
                    f'({where.filename}:{where.lineno})')
    return result


def main(root, count):
    """A process for every kind."""
    found = {}
    for kind in KINDS:
        folder = root / kind.__name__
        folder.mkdir()
        child = os.fork()
        if not child:
            os.chdir(folder)
            signal.alarm(SECONDS)
            out = root / f'{kind.__name__}.out'
            status = 1
            try:
                out.write_text(json.dumps(run(kind, folder, count)))
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out = root / f'{kind.__name__}.out'
        found[kind.__name__] = dict(
            json.loads(out.read_text()) if out.exists() else {},
            status=status, last=(folder / 'number').read_text())
    print('FOUND ' + json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
