"""Checks of settings name the key, the value and the nearest choice."""
from mmblockdrop.utils.messages import (check_arguments, did_you_mean,
                                        reject_unknown, require_choice,
                                        require_file, require_folder,
                                        require_whole)

import pytest


class Thing:

    def __init__(self, runner, size=1, *, colour='red'):
        pass


@pytest.mark.parametrize('value, choices, expected', [
    ('colur', ['size', 'colour'], "; did you mean 'colour'?"),
    ('x', ['size', 'colour'], ''),
    (12, [1, 123], "; did you mean '123'?"),
    ('a', [], ''),
])
def test_nearest_choice(value, choices, expected):
    assert did_you_mean(value, choices) == expected


@pytest.mark.parametrize('value', ['colur', 'x', 3, None, ['size']])
def test_choices(value):
    require_choice('a.b', 'size', ('size', 'colour'))
    with pytest.raises(ValueError) as caught:
        require_choice('a.b', value, ('size', 'colour'))
    assert f"a.b={value!r}: expected one of 'size', 'colour'" in str(
        caught.value)


def test_many_choices_are_not_all_listed():
    with pytest.raises(ValueError, match="'11' and 8 more") as caught:
        require_choice('a.b', 'x', [str(i) for i in range(20)])
    assert "'12'" not in str(caught.value)


@pytest.mark.parametrize('value', [0, -1, 1.5, '2', None, True])
def test_whole_numbers(value):
    require_whole('a.b', 1, 1)
    with pytest.raises(ValueError, match=f'a.b={value!r}: .*at least 1'):
        require_whole('a.b', value, 1)


def test_files_and_folders(tmp_path):
    (tmp_path / 'config.py').write_text('')
    require_file(tmp_path / 'config.py', 'config')
    require_file('https://host/file.pth', 'checkpoint')
    require_folder(str(tmp_path), 'root')
    with pytest.raises(FileNotFoundError, match="config=.*'config.py'"):
        require_file(tmp_path / 'confg.py', 'config')
    with pytest.raises(FileNotFoundError, match="root=.*has no 'not'"):
        require_folder(tmp_path / 'not' / 'there', 'root')
    with pytest.raises(IsADirectoryError, match='config=.*is a folder'):
        require_file(tmp_path, 'config')
    with pytest.raises(NotADirectoryError, match='root=.*is a file'):
        require_folder(tmp_path / 'config.py', 'root')


def test_names_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text('')
    with pytest.raises(FileNotFoundError, match="did you mean 'config.py'"):
        require_file('confg.py', 'config')


def test_unknown_arguments():
    reject_unknown(Thing, {}, 'a.b')
    with pytest.raises(ValueError, match="a.b has 'sizes'.*'size'"):
        reject_unknown(Thing, dict(sizes=1), 'a.b')
    with pytest.raises(ValueError, match="a.b has 'max_epochs'.*_delete_"):
        reject_unknown(Thing, dict(max_epochs=1), 'a.b')
    check_arguments(Thing, dict(type='Thing', size=2), 'a.b')
    with pytest.raises(ValueError, match="a.b has 'sizes'.*'size'"):
        check_arguments(Thing, dict(type='Thing', sizes=2), 'a.b')
