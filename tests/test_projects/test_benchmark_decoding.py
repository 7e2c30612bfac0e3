"""The benchmark of decoding, on two tiny videos."""

import benchmark_decoding as benchmark
import cv2
import numpy as np
import pytest
import torch


@pytest.fixture
def videos(tmp_path):
    """A folder of two videos."""
    torch.set_num_threads(1)
    folder = tmp_path / 'videos'
    folder.mkdir()
    for name, frames in (('a', 40), ('b', 24)):
        writer = cv2.VideoWriter(
            str(folder / f'{name}.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10.,
            (96, 80))
        for index in range(frames):
            writer.write(np.full((80, 96, 3), index, np.uint8))
        writer.release()
    return folder


@pytest.mark.slow
def test_section_is_written(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'in_new_process',
                        lambda function, *args: function(*args))
    page = tmp_path / 'page.md'
    text = benchmark.main([
        str(videos), '--window', '16', '--pixels', '64', '--repeats', '1',
        '--steps', '1', '--workers', '0', '--minutes', '0.05', '0.1',
        '--generated-fps', '10', '--page', str(page)
    ])
    assert text in page.read_text()
    speed, waiting, memory = (
        part.splitlines() for part in text.split('\n\n')
        if part.startswith('|'))
    # 4 and 2 windows of 16 frames, by every pipeline.
    assert len(speed) in (2 + 5, 2 + 6)  # with ffmpeg
    assert all(f'| {6 * 16} |' in ' '.join(row.split()) for row in speed[2:])
    assert len(waiting) == 2 + 4 and '%' in waiting[-1]
    assert [row.split('|')[2].strip() for row in memory[2:]] == ['30', '60']


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(FileNotFoundError, match='no video'):
        benchmark.main([str(tmp_path)])
