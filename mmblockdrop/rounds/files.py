"""The files of a run: record, checkpoints."""
import functools
import json
from pathlib import Path
from typing import Any, Dict, Optional

from mmblockdrop.utils.io import check_folder, whole_file

from mmengine.dist import barrier, is_main_process, master_only
from mmengine.runner import Runner


def write_json(content: Dict[str, Any], path: Path) -> None:
    """Write JSON to a temporary name and rename it.

    Args:
        content: Plain data.
        path: Final name.
    """
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + '\n')


def read_json(path: Path) -> Optional[Dict[str, Any]]:
    """Read JSON if the file exists.

    Args:
        path: File name.

    Returns:
        Its content, or None.

    Raises:
        ValueError: The file is no JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no JSON: {error}') from None


def keep_checkpoints_whole(runner: Runner) -> None:
    """Let a runner write checkpoints under a temporary name first.

    A process that is killed while writing then leaves the checkpoint of the
    same name as it was. Checkpoints that go through a storage backend of
    their own, and not into a local folder, are written as before.

    Args:
        runner: The runner; ``save_checkpoint`` is replaced.
    """
    plain = runner.save_checkpoint
    if getattr(plain, 'whole', False):
        return

    @master_only
    @functools.wraps(plain)
    def save_checkpoint(out_dir: str, filename: str, *args,
                        **kwargs) -> None:
        backend = args[:1] + (kwargs.get('file_client_args'),
                              kwargs.get('backend_args'))
        if any(backend) or '://' in str(out_dir):
            plain(out_dir, filename, *args, **kwargs)
            return
        check_folder(Path(runner.work_dir))
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / filename) as temporary:
            plain(out_dir, temporary.name, *args, **kwargs)

    save_checkpoint.whole = True
    runner.save_checkpoint = save_checkpoint


def save_weights(runner: Runner, name: str) -> Path:
    """Write the weights and the record into the work directory.

    Runs the hooks that act on checkpoints, so with an ``EMAHook`` the
    weights are the averaged ones. All processes return when it is there.

    Args:
        runner: The runner.
        name: File name.

    Returns:
        The file.
    """
    runner.save_checkpoint(
        runner.work_dir,
        name,
        save_optimizer=False,
        save_param_scheduler=False,
        meta=dict(epoch=runner.epoch, iter=runner.iter))
    barrier()
    return Path(runner.work_dir) / name


def remove_file(path: Path) -> None:
    """Remove a file, on the main process, if it is there.

    Args:
        path: The file.
    """
    if is_main_process() and path.is_file():
        path.unlink()
