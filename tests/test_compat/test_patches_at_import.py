"""Patches wait for the module that they are for."""
import inspect

from mmblockdrop import compat
from mmblockdrop.compat import importing

import pytest
from mmengine.config import Config
from patches_kit import ROOT


def test_patch_waits_for_the_import(tmp_path, monkeypatch):
    (tmp_path / 'late_module.py').write_text('def value():\n    return 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    importing.after_import('late_module', seen.append)
    assert seen == []
    import late_module
    assert seen == [late_module]
    assert 'return 1' in inspect.getsource(late_module)
    importing.after_import('late_module', seen.append)
    assert seen == [late_module, late_module]


def test_real_module_wins_over_stand_in(tmp_path, monkeypatch):
    (tmp_path / 'real_module.py').write_text('real = True\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ('real_module', 'absent_module'):
        importing.stand_in(name, lambda module: setattr(module, 'real', False))
    import absent_module
    import real_module
    assert real_module.real and not absent_module.real


def test_import_error_is_handed_over(tmp_path, monkeypatch):
    (tmp_path / 'broken_module.py').write_text('import not_there_at_all\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    errors = []
    importing.on_failed_import('broken_module',
                               lambda module, error: errors.append(error))
    import broken_module  # noqa: F401
    assert 'not_there_at_all' in str(errors[0])


def test_unknown_patch_names_the_nearest(monkeypatch):
    monkeypatch.setenv('MMBLOCKDROP_WITHOUT', 'glo')
    monkeypatch.setattr(compat, '_applied', False)
    with pytest.raises(ValueError, match="nearest is 'gloo'"):
        compat.apply()


def test_configs_inherit_from_ours(tmp_path, monkeypatch):
    name = next((ROOT / 'configs').rglob('*.py')).relative_to(ROOT / 'configs')
    file = tmp_path / 'config.py'
    file.write_text(f"_base_ = 'mmblockdrop::{name.as_posix()}'\nextra = 1\n")
    assert Config.fromfile(file).extra == 1


def test_no_scope_is_written_into_what_is_inherited(tmp_path):
    """Names of mmengine and mmaction2 in our configs are found."""
    file = tmp_path / 'config.py'
    for path in sorted((ROOT / 'configs').rglob('*.py'))[::25]:
        name = path.relative_to(ROOT / 'configs').as_posix()
        file.write_text(f"_base_ = 'mmblockdrop::{name}'\n")
        inherited = Config.fromfile(file, format_python_code=False)
        plain = Config.fromfile(path, format_python_code=False)
        assert '_scope_' not in str(inherited.to_dict())
        assert inherited.to_dict() == plain.to_dict()
