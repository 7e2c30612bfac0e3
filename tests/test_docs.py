"""What the documentation names is there."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([
    ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
    *ROOT.glob('docs/en/**/*.md'), *ROOT.glob('configs/*/README.md'),
    *ROOT.glob('projects/*/README.md')
])
FOLDERS = 'configs|demo|docs|mmblockdrop|projects|requirements|tests|tools'
#: Pages that programs write when they have measured something.
WRITTEN = ('benchmarks.md', )
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def source(program):
    """Text of a program, and of what it takes arguments from."""
    path = ROOT / program
    text = path.read_text()
    for name in re.findall(r'^from (\w+) import', text, re.M):
        shared = path.with_name(f'{name}.py')
        text += shared.read_text() if shared.is_file() else ''
    for name in re.findall(r'tools/(\w+\.py)', text.replace('$TOOLS/',
                                                            'tools/')):
        if path.suffix == '.sh' and (ROOT / 'tools' / name).is_file():
            text += source(f'tools/{name}')
    for module in re.findall(r' -m (mmblockdrop[\w.]*)', text):
        text += (ROOT / module.replace('.', '/') / '__main__.py').read_text()
    return text


@pytest.mark.parametrize('page', NAMES)
def test_files_are_there(page):
    text = (ROOT / page).read_text()
    paths = re.findall(
        rf'(?<![\w/.])(?:{FOLDERS})/[\w./-]+\.(?:py|sh|md|txt|yml)\b', text)
    missing = [
        p for p in paths
        if not (ROOT / p).exists() and '...' not in p and '/my_' not in p
    ]
    links = re.findall(r'\]\(([^)#\s]+)', text)
    missing += [
        link for link in links if '://' not in link
        and Path(link).name not in WRITTEN
        and not ((ROOT / page).parent / link).exists()
    ]
    assert not missing


@pytest.mark.parametrize('page', NAMES)
def test_headings_that_are_linked_are_there(page):
    links = re.findall(r'\]\(([^)#\s]*)#([^)\s]+)\)',
                       (ROOT / page).read_text())
    for link, anchor in links:
        target = (ROOT / page).parent / link if link else ROOT / page
        if '://' in link or target.name in WRITTEN:
            continue
        heads = re.findall(r'^#+ (.+)$', target.read_text(), re.M)
        slugs = [
            re.sub(r'[^\w -]', '', head.lower()).replace(' ', '-')
            for head in heads
        ]
        assert anchor in slugs, f'{link}#{anchor}'


@pytest.mark.parametrize('page', NAMES)
def test_programs_have_the_options(page):
    text = (ROOT / page).read_text().replace('\\\n', ' ')
    for line in text.splitlines():
        found = re.search(
            r'(?:python|bash) ((?:tools|demo|projects)/[\w./]+)(.*)', line)
        if found is None or found.group(1).endswith('...'):
            continue
        program, rest = found.groups()
        known = source(program)
        for option in re.findall(r'(?<![\w-])--[a-z][\w-]*', rest):
            assert f"'{option}'" in known, f'{program} {option}'


@pytest.mark.parametrize('page', NAMES)
def test_types_are_registered(page):
    from mmblockdrop import registry
    known = [
        value for value in vars(registry).values()
        if isinstance(value, registry.Registry)
        and value.scope == 'mmblockdrop'
    ]
    text = (ROOT / page).read_text()
    for name in set(re.findall(r'\bmmblockdrop\.([A-Z]\w+)', text)):
        made_here = f'class {name}(' in text or name == 'X'
        assert made_here or any(r.get(name) for r in known), name
