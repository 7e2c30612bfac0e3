"""Table and pictures of a run and of a video."""
import copy

from mmblockdrop.inference import draw_timeline
from mmblockdrop.report import (draw_scores, draw_tradeoff, round_table,
                                write_report)
from mmblockdrop.report.text import id_labels

import cv2
import numpy as np
import pytest

RECORD = dict(
    version=1,
    stack='backbone.blocks',
    depth=4,
    metric='tad/mAP',
    baseline=dict(metric=0.83, metrics={}, params=2000000, macs=4 * 10**9,
                  latency_ms=20., blocks_left=[0, 1, 2, 3]),
    rounds=[
        dict(round=1, state='aligned', criterion='MetricScorer',
             higher_is_better=True, scores={'1': 0.61, '2': 0.7, '3': 0.2},
             dropped=[2], blocks_left=[0, 1, 3], metric_before=0.7,
             metric_after=0.82, best_epoch=3, params=1500000,
             macs=3 * 10**9, latency_ms=15., seconds=dict(score=30.,
                                                          align=60.)),
        dict(round=2, state='dropped', criterion='MetricScorer',
             higher_is_better=True, scores={'1': 0.5, '3': 0.4},
             dropped=[1], blocks_left=[0, 3], metric_before=0.5)
    ])


def is_picture(path, least=200):
    picture = cv2.imread(str(path))
    # Something is drawn: several colours on a picture of some size.
    return min(picture.shape[:2]) >= least and len(
        np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_table_has_a_line_per_round():
    lines = round_table(RECORD).splitlines()
    cells = [[c.strip() for c in line.split('|')[1:-1]] for line in lines]
    head, rows = cells[0], cells[2:]
    first = dict(zip(head, rows[1]))
    assert len(rows) == 3 and len({len(line) for line in lines}) == 1
    assert first['dropped'] == '2' and first['blocks'] == '3'
    assert first['score (%)'] == '70.00' and first['minutes'] == '1.5'
    assert first['tad/mAP (%) after drop'] == '70.00'
    assert first['tad/mAP (%) after alignment'] == '82.00'
    assert first['GMACs'] == '3.00 (-25 %)'
    assert dict(zip(head, rows[0]))['tad/mAP (%) after alignment'] == '83.00'
    assert dict(zip(head, rows[2]))['best epoch'] == '-'


def test_latency_has_its_ratio_and_spread(tmp_path):
    record = copy.deepcopy(RECORD)
    record['rounds'][0].update(
        latency_ratio=0.8, latency_spread=[0.78, 0.83])
    text = round_table(record)
    assert '15.0 (-20 %; -22 % to -17 %)' in text
    assert is_picture(draw_tradeoff(record, tmp_path / 'x.png'))
    # Blocks were dropped before the first round.
    record['baseline'].update(latency_ratio=0.8, latency_spread=[0.8, 0.8])
    record['rounds'][0].update(
        latency_ratio=0.4, latency_spread=[0.4, 0.6])
    assert '15.0 (-50 %; -50 % to -25 %)' in round_table(record)


def halves():
    """A record whose removable parts are named, not numbered."""
    ids = [f'backbone.blocks.{i}.{half}' for i in range(3)
           for half in ('attn', 'mlp')]
    scores = {part: 0.1 * i for i, part in enumerate(ids[1:])}
    first = dict(RECORD['rounds'][0], scores=scores, dropped=[ids[3]],
                 blocks_left=ids[:3] + ids[4:])
    return dict(
        RECORD, version=2, kind='HalfBlocks', depth=6, ids=ids, rounds=[first],
        baseline=dict(RECORD['baseline'], blocks_left=ids))


def test_parts_with_names_are_shown_by_what_tells_them_apart(tmp_path):
    record = halves()
    assert [*id_labels(record).values()] == [
        '0.attn', '0.mlp', '1.attn', '1.mlp', '2.attn', '2.mlp']
    lines = round_table(record).splitlines()
    cells = [[c.strip() for c in line.split('|')[1:-1]] for line in lines]
    first = dict(zip(cells[0], cells[3]))
    assert first['dropped'] == '1.mlp' and first['blocks'] == '5'
    assert first['score (%)'] == '20.00'
    files = write_report(record, tmp_path)
    assert len(files) == 3 and all(is_picture(f) for f in files[1:])


def test_labels_of_parts_without_a_common_path():
    ids = ['blocks.0', 'head.tower.0']
    assert id_labels(dict(ids=ids)) == {i: i for i in ids}
    assert id_labels(dict(ids=['blocks.0'])) == {'blocks.0': '0'}
    assert id_labels(dict(depth=2)) == {0: '0', 1: '1'}


def test_table_of_an_empty_record():
    assert '| 0 |' in round_table(dict(depth=4, rounds=[])).replace('  ', '')


def test_report_writes_table_and_pictures(tmp_path):
    files = write_report(RECORD, tmp_path)
    assert [f.name for f in files] == [
        'blockdrop.md', 'blockdrop_scores.png', 'blockdrop_tradeoff.png']
    assert files[0].read_text().startswith('|')
    assert all(is_picture(f) for f in files[1:])
    early = copy.deepcopy(RECORD)
    early['rounds'] = []
    assert len(write_report(early, tmp_path / 'early')) == 1


@pytest.mark.parametrize('criterion, lower', [('LossScorer', True),
                                              ('BlockChangeScorer', True)])
def test_scores_of_every_criterion_can_be_drawn(tmp_path, criterion, lower):
    record = copy.deepcopy(RECORD)
    for entry in record['rounds']:
        entry.update(criterion=criterion, higher_is_better=not lower)
    assert is_picture(draw_scores(record, tmp_path / 'scores.png'))


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no round of the record has scores'):
        draw_scores(dict(rounds=[]), tmp_path / 'x.png')
    with pytest.raises(ValueError, match="neither 'macs' nor 'latency_ms'"):
        draw_tradeoff(dict(baseline=dict(metric=0.5)), tmp_path / 'x.png')
    with pytest.raises(ValueError, match='duration must be positive'):
        draw_timeline(None, [], 0, tmp_path / 'x.png')


def test_timeline_with_and_without_frames(tmp_path):
    video = tmp_path / 'v.mp4'
    writer = cv2.VideoWriter(
        str(video), cv2.VideoWriter_fourcc(*'mp4v'), 10, (64, 64))
    for i in range(40):
        writer.write(np.full((64, 64, 3), 6 * i, np.uint8))
    writer.release()
    rows = [('ground truth', [[0, 1], [0.5, 2]], ['run', 'jump']),
            ('compressed', np.zeros((0, 2)), [], []),
            ('teacher', [[0, 1.]], np.array([1]), [0.4])]
    with_frames = draw_timeline(video, rows, 4., tmp_path / 'a.png',
                                title='v', classes=['jump', 'run'])
    without = draw_timeline(None, rows, 4., tmp_path / 'b.png',
                            classes=['jump', 'run'])
    assert is_picture(with_frames) and is_picture(without, 100)
    assert cv2.imread(str(with_frames)).shape[0] > cv2.imread(
        str(without)).shape[0]


def measured():
    """A record that says what it was measured on."""
    record = copy.deepcopy(RECORD)
    record['baseline'].update(score=0.75, metrics={
        'tad/mAP': 0.83, 'tad/mAP_interval': [0.701, 0.902],
        'tad/videos': 5, 'tad/actions': 1})
    record['rounds'][0].update(
        intervals={'0': [0.1, 0.2], '3': [0.7, 0.9]},
        scored_on=dict(samples=30, videos=25, subset='training',
                       validation=False))
    return record


def test_metrics_have_intervals_and_say_what_they_were_measured_on(tmp_path):
    table, scores, tradeoff = write_report(measured(), tmp_path)
    text = table.read_text()
    assert '83.00 [70.1, 90.2]' in text and '82.00 [70.0, 90.0]' in text
    assert 'validation, 5 videos with 1 action;' in text
    assert "score: 25 videos of subset 'training'." in text
    assert is_picture(scores) and is_picture(tradeoff)
    rows = [[c.strip() for c in line.split('|')[1:-1]]
            for line in text.splitlines() if line.startswith('|')]
    assert dict(zip(rows[0], rows[2]))['score (%)'] == '75.00'


def test_scores_that_are_no_metric_are_not_in_percent():
    record = measured()
    for entry in record['rounds']:
        entry['criterion'] = 'LossScorer'
    assert 'score (%)' not in round_table(record)
