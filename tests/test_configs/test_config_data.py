"""The data sets of the configs: tiny videos in their form, real files."""
import warnings

from mmblockdrop.registry import DATASETS, METRICS

import pytest
from config_kit import (PARTS, PIXELS, PUBLIC, ROOT, datasets, find, kind_of,
                        read, shorten_windows, use_data, write_data)

LORA = 'actionformer_vit-small-p16-lora_'
#: One config or variant for each way to read a data set, and its pixels.
READERS = {
    find(f'configs/thumos14/{LORA}'): 160,
    'thumos14-224': 224,
    find(f'configs/activitynet13/{LORA}'): 160,
    'activitynet13-224': 224,
    find(f'configs/multithumos/{LORA}'): 160,
    find(f'configs/fineaction/{LORA}'): 160,
    find('configs/demo_actions/actionformer_'): 48,
    find('projects/ceiling_adl/configs/actionformer_'): 48,
    find('projects/grid_words/configs/actionformer_'): 32
}


@pytest.mark.parametrize('name,pixels', READERS.items())
def test_every_loader_on_a_tiny_video(tmp_path, name, pixels):
    kind = kind_of(name)
    cfg = read(name)
    frames = shorten_windows(cfg)
    subsets = dict(training=5, validation=1)
    if kind not in PUBLIC:
        subsets['test'] = 1
    folder = write_data(tmp_path, kind, subsets, frames + 8)
    use_data(cfg, folder)
    colours = cfg.model.backbone.get('in_channels', 3)
    seen = {}
    for part in PARTS:
        config = datasets(cfg)[part]
        dataset = DATASETS.build(config)
        seen[part] = set(dataset.video_names)
        packed = dataset[0]
        shown = config.window_size * config.frames_per_step
        assert packed['inputs'].shape == (1, colours, shown, pixels, pixels)
        sample = packed['data_samples']
        assert 0 < sample.valid_steps <= config.window_size
        assert len(sample.video_labels) == 2
        one_class = config.get('class_agnostic', False)
        assert set(sample.video_labels) == ({0} if one_class else {
            dataset.metainfo['classes'].index(label)
            for label in dataset.metainfo['classes'] if label != 'another'
        } & set(sample.video_labels))
        if part == 'train':
            assert len(sample.gt_instances.labels)
    assert not seen['train'] & seen['val']
    assert not (seen['train'] | seen['val']) & seen['test']
    assert seen['score'] <= seen['train']
    assert seen['test'] and not seen['test'] & {'gone', 'hidden'}


def test_every_data_set_is_tried():
    files = {
        path.stem
        for folder in ('configs/_base_/datasets', 'projects/*/configs/_base_')
        for path in ROOT.glob(f'{folder}/*.py')
    }
    assert files == {
        *map(kind_of, READERS), 'untrimmed_video', 'square_frames'
    }


# Real annotations ---------------------------------------------------------

#: Folder beside the repository, file, videos of both subsets, and actions and
#: classes of the test part (ActivityNet has 7293, three of zero length).
REAL = {
    'thumos14': ('thumos14_annotations', 'thumos_14_anno.json',
                 dict(training=200, validation=211), 3325, 20),
    'activitynet13': ('activitynet13', 'activitynet_13_train_val.json',
                          dict(training=9649, validation=4728), 7290, 200)
}


def baseline(name):
    return read(find(f'configs/{name}/{LORA}'))


def annotations_of(name, tmp_path):
    """The real file, or loudly a small one of the same form."""
    folder, file, videos, actions, classes = REAL[name]
    shared = ROOT.parent / 'shared' / 'data' / folder
    if shared.is_dir():
        return (shared, file, 'category_idx.txt'), (videos, actions, classes)
    warnings.warn(f'{shared} is absent: the data settings are checked on a '
                  'small file of the same form, not on the real annotations')
    videos = dict(training=5, validation=2)
    written = write_data(tmp_path, name, videos, 24)
    file = datasets(baseline(name))['train'].ann_file
    return ((written, file, 'annotations/category_idx.txt'),
            (videos, 2 * videos['validation'], 2))


@pytest.mark.parametrize('name', REAL)
def test_whole_annotation_files(tmp_path, name):
    (folder, file, names), (videos, actions, classes) = annotations_of(
        name, tmp_path)
    cfg = baseline(name)
    built = {}
    for part in ('train', 'val', 'test'):
        config = datasets(cfg)[part]
        config.update(data_root=str(folder), ann_file=file, classes=names)
        config.data_prefix = dict()
        if 'block_list' in config:
            config.block_list = ['no longer on-line', 'gone']
        built[part] = DATASETS.build(config)
    parts = {part: len(data.video_names) for part, data in built.items()}
    assert parts['train'] + parts['val'] == videos['training']
    assert parts['test'] == videos['validation']
    ratio = cfg.val_split.ratio
    assert parts['val'] == max(1, round(ratio * videos['training']))
    assert len(built['test'].metainfo['classes']) == classes
    found = {}
    for i in range(len(built['test'])):
        info = built['test'].get_data_info(i)
        found[info['video_name']] = info['video_labels']
        assert info['valid_steps' if 'valid_steps' in info else 'fps'] > 0
    assert len(found) == videos['validation']
    assert sum(map(len, found.values())) == actions
    assert len(built['train']) <= parts['train']
    assert len({label for labels in found.values() for label in labels}) <= (
        classes)


@pytest.mark.parametrize('name', REAL)
def test_without_the_data_the_key_and_the_folder_are_named(
        tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    cfg = baseline(name)
    with pytest.raises(FileNotFoundError, match="data_root='data/.*13'|"
                       "data_root='data/thumos14'"):
        DATASETS.build(datasets(cfg)['train'])
    if 'external_classifier' in cfg.test_evaluator:
        with pytest.raises(FileNotFoundError, match='cuhk_val_simp_7'):
            METRICS.build(cfg.test_evaluator)


def test_a_block_list_of_everything_is_an_error(tmp_path):
    cfg = baseline('activitynet13')
    shorten_windows(cfg)
    folder = write_data(tmp_path, 'activitynet13',
                        dict(training=2, validation=1), PIXELS)
    config = datasets(use_data(cfg, folder))['test']
    config.block_list = ['validation_0', 'gone']
    with pytest.raises(ValueError, match='block_list'):
        DATASETS.build(config)
    config.block_list = 'annotations/blocks.json'
    with pytest.raises(FileNotFoundError, match='blocked.json'):
        DATASETS.build(config)
