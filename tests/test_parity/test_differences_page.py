"""The page on differences from the published code names what is there."""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_tests_that_the_page_names_exist():
    page = (ROOT / 'docs/en/notes/differences.md').read_text()
    named = set(re.findall(r'`(test_\w+)`', page))
    defined = {
        name for path in ROOT.glob('tests/**/test_*.py')
        for name in re.findall(r'^def (test_\w+)\(', path.read_text(), re.M)
    }
    assert named and not named - defined
