"""What the benchmarks share: page, time, memory."""
import argparse

import common as page
import numpy as np
import pytest


def test_sections_are_replaced_one_by_one(tmp_path):
    path = tmp_path / 'notes' / 'page.md'
    page.write_section(path, 'first', '## First\n\n1')
    page.write_section(path, 'second', '## Second\n\n2')
    mine = path.read_text().replace('1', '1\n\nby \\1 hand')
    path.write_text(mine + '\nThe end.\n')
    page.write_section(path, 'second', '## Second\n\n22 \\1')
    text = path.read_text()
    assert text.startswith('# Benchmarks')
    assert 'by \\1 hand' in text and text.endswith('The end.\n')
    assert text.count('## Second') == 1 and '22 \\1' in text
    assert text.index('## First') < text.index('## Second')
    assert [p.name for p in path.parent.iterdir()] == ['page.md']


def test_names_that_cannot_be_markers_are_rejected(tmp_path):
    with pytest.raises(ValueError, match='section name'):
        page.write_section(tmp_path / 'page.md', 'a b', '')


def test_publish_names_the_conditions(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    page.add_arguments(parser)
    path = tmp_path / 'page.md'
    args = parser.parse_args(['--page', str(path), '--dry-run'])
    text = page.publish(args, 'toy', 'Toy', '1 s')
    assert 'torch' in text and 'cores' in text and text in capsys.readouterr(
    ).out
    assert not path.exists()
    page.publish(parser.parse_args(['--page', str(path)]), 'toy', 'Toy', '2 s')
    assert '2 s' in path.read_text()


def test_functions_take_turns():
    calls = []
    times = page.alternate(
        dict(a=lambda: calls.append('a'), b=lambda: calls.append('b')),
        repeats=3)
    assert ''.join(calls) == 'abbaabba'
    assert len(times['a']) == len(times['b']) == 3
    assert page.median_ratio([1, 2, 9], [2, 2, 3]) == 1


def growth(size):
    """Bytes by which the peak rises while an array of a size is written."""
    before = page.restart_peak()
    block = np.ones(size, np.uint8)
    after = page.peak_resident()
    del block
    return after - before


@pytest.mark.slow
def test_peak_of_a_process():
    # In a process of its own: what earlier tests left behind may be given
    # back to the system at any moment.
    size = 256 * 2**20
    grown = page.in_new_process(growth, size)
    assert 0.75 * size < grown < 1.5 * size
