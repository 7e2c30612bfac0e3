"""The program that lists what can be dropped, and its table in the docs."""
from pathlib import Path

import list_blocks
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[2]

PAGE = ROOT / 'docs' / 'en' / 'user_guides' / 'blocks.md'


def rows(text):
    """Cells of the lines of all tables in a text."""
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in text.splitlines() if line.startswith('|')]


def test_the_table_in_the_docs():
    documented = {row[0].strip('`'): row for row in rows(PAGE.read_text())}
    assert set(list_blocks.PRESETS) <= set(documented)
    name = 'MViT'
    with DefaultScope.overwrite_default_scope('mmaction'):
        row = list_blocks.table_row(name, list_blocks.PRESETS[name])
    assert list(row.values()) == documented[name]
    assert (row['blocks'], row['may go']) == ('16', '13')


def test_one_backbone(capsys):
    shape = '--shape 1 3 4 32 32'.split()
    options = '--options depth=18 base_channels=4 pretrained=None'.split()
    assert list_blocks.main(
        ['--backbone', 'ResNet3d', *shape, *options,
         'pretrained2d=False', 'inflate=0']) == 0
    out = rows(capsys.readouterr().out)
    assert [row[:3] for row in out[2:]] == [['`layer1`', '2', '2']] + [
        [f'`layer{i}`', '2', '1'] for i in (2, 3, 4)
    ]
    assert out[3][3].startswith('0 turns [1, 4, ')


@pytest.mark.parametrize('argv,word', [
    (['--backbone', 'Unheard'], 'give --shape'),
    (['--backbone', 'Unheard', '--shape', '1', '3'], 'Unheard'),
    (['--backbone', 'LoRAViT', '--stack', 'layers'], 'blocks (12 blocks)'),
])
def test_mistakes(argv, word, capsys):
    assert list_blocks.main(argv) == 1
    assert word in capsys.readouterr().err


def test_a_config_of_a_recognizer(tmp_path, capsys):
    backbone = dict(
        type='mmaction.ResNet3dSlowOnly', depth=18, base_channels=4,
        lateral=False, pretrained=None)
    path = tmp_path / 'recognizer.py'
    Config(
        dict(
            default_scope='mmaction',
            model=dict(type='Recognizer3D', backbone=backbone))).dump(path)
    assert list_blocks.main([str(path)]) == 1
    assert 'give --shape' in capsys.readouterr().err
    shape = '--shape 1 1 3 4 32 32'.split()
    assert list_blocks.main([str(path), *shape]) == 0
    out = rows(capsys.readouterr().out)
    assert out[2][:3] == ['`backbone.layer1`', '2', '2']
