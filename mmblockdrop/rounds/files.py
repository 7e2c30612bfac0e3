"""Write files that are either whole or absent."""
import json
import os
from pathlib import Path
from typing import Any, Dict, Optional

from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner


def write_json(content: Dict[str, Any], path: Path) -> None:
    """Write JSON to a temporary name and rename it.

    Args:
        content (dict): Plain data.
        path (Path): Final name.
    """
    temporary = path.with_suffix('.json.tmp')
    temporary.write_text(json.dumps(content, indent=2) + '\n')
    os.replace(temporary, path)


def read_json(path: Path) -> Optional[Dict[str, Any]]:
    """Read JSON if the file exists.

    Args:
        path (Path): File name.

    Returns:
        dict, optional: Its content, or None.

    Raises:
        ValueError: The file is no JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no JSON: {error}') from None


def save_weights(runner: Runner, name: str) -> Path:
    """Write the weights and the record into the work directory.

    Runs the hooks that act on checkpoints, so with an ``EMAHook`` the
    weights are the averaged ones. All processes return when it is there.

    Args:
        runner (Runner): The runner.
        name (str): File name.

    Returns:
        Path: The file.
    """
    path = Path(runner.work_dir) / name
    temporary = f'{name}.tmp'
    runner.save_checkpoint(
        runner.work_dir,
        temporary,
        save_optimizer=False,
        save_param_scheduler=False,
        meta=dict(epoch=runner.epoch, iter=runner.iter))
    if is_main_process():
        os.replace(path.with_name(temporary), path)
    barrier()
    return path
