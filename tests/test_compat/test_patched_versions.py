"""Versions that are rejected at import."""
from mmblockdrop import compat
from mmblockdrop.compat import versions

import pytest


def test_versions_are_accepted_here():
    compat.check_versions()


@pytest.mark.parametrize('distribution, found, expected', [
    ('mmengine', '0.9.1', 'mmengine>=0.10.7,<0.11, found 0.9.1'),
    ('mmengine', '0.11.0rc0', 'mmengine>=0.10.7,<0.11, found 0.11.0rc0'),
    ('torch', '2.0.1+cpu', "pip install 'torch>=2.1'"),
    ('mmcv-lite', '2.2.0', 'mmcv-lite>=2.0.0rc4,<2.2, found 2.2.0'),
    ('mmaction2', None, 'mmaction2>=1.2.0,<1.3, found none'),
])
def test_wrong_version_names_what_to_install(monkeypatch, distribution, found,
                                             expected):
    original = versions.installed_version

    def installed_version(requirement):
        if distribution in requirement.distributions:
            return found
        return original(requirement)

    monkeypatch.setattr(versions, 'installed_version', installed_version)
    with pytest.raises(ImportError) as caught:
        compat.check_versions()
    assert expected in str(caught.value)


@pytest.mark.parametrize('distribution, found', [
    ('torch', '2.1.0'),
    ('torch', '2.13.0+cu130'),
    ('mmcv-lite', '2.0.0rc4'),
    ('mmcv-lite', '2.1.0'),
])
def test_supported_version_is_accepted(monkeypatch, distribution, found):
    monkeypatch.setattr(
        versions, 'installed_version', lambda requirement: found
        if distribution in requirement.distributions else requirement.wanted.
        split(',')[0].lstrip('>='))
    compat.check_versions()


def test_version_of_a_checkout_without_metadata(tmp_path, monkeypatch):
    (tmp_path / 'checkout_only.py').write_text("__version__ = '3.2.1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    requirement = versions.Requirement('checkout_only', ('nowhere', ), '>=3')
    assert versions.installed_version(requirement) == '3.2.1'
    absent = versions.Requirement('not_there_at_all', ('nowhere', ), '>=3')
    assert versions.installed_version(absent) is None
