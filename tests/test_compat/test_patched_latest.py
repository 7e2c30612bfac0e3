"""Where a training finds the checkpoint to go on from."""
import os

import pytest
import torch
from mmengine.runner import find_latest_checkpoint


@pytest.fixture
def copied(tmp_path):
    """A copy beside its original; each holds two epochs and the note."""
    for name in ('original', 'copy'):
        folder = tmp_path / name
        folder.mkdir()
        for epoch in (1, 2):
            torch.save(dict(), folder / f'epoch_{epoch}.pth')
            os.utime(folder / f'epoch_{epoch}.pth', (epoch, epoch))
        (folder / 'last_checkpoint').write_text(
            str(tmp_path / 'original' / 'epoch_2.pth'))
    return tmp_path / 'copy'


def test_copy_goes_on_from_itself(copied):
    assert find_latest_checkpoint(str(copied)) == str(copied / 'epoch_2.pth')


@pytest.mark.parametrize('note', ['', '\0' * 40, 'epoch_9.pth'])
def test_broken_note_stands_for_the_newest_whole_file(copied, note):
    (copied / 'last_checkpoint').write_text(note)
    (copied / 'epoch_2.pth').write_bytes(b'half')
    assert find_latest_checkpoint(str(copied)) == str(copied / 'epoch_1.pth')


def test_original_is_not_used_where_the_copy_has_none(copied):
    for path in copied.glob('*.pth'):
        path.unlink()
    assert find_latest_checkpoint(str(copied)) is None


def test_folder_of_checkpoints_elsewhere(copied, tmp_path):
    out_dir = tmp_path / 'elsewhere' / 'copy'
    out_dir.mkdir(parents=True)
    torch.save(dict(), out_dir / 'epoch_3.pth')
    (copied / 'last_checkpoint').write_text(str(out_dir / 'epoch_3.pth'))
    assert find_latest_checkpoint(str(copied)) == str(out_dir / 'epoch_3.pth')


def test_without_note(tmp_path):
    assert find_latest_checkpoint(str(tmp_path)) is None
