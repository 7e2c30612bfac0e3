"""Import the published code of Progressive Block Drop, as it is.

Two extensions for the GPU that it imports and that no localizer of the paper
calls get empty stand-ins; its suppression in C++ is compiled.
"""
import copy
import shutil
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch.distributed as dist
from mmengine.config import ConfigDict

#: Modules for the GPU that the code imports, and a name it takes from each.
STAND_INS = ('Align1D', 'boundary_max_pooling_cuda')
INFERENCE = ConfigDict(
    load_from_raw_predictions=False, save_raw_prediction=False)


def import_published(folder: str) -> None:
    """Make ``opentad`` importable and start a group of one process.

    Args:
        folder: Checkout of nanxiaolu/Progressive_Block_Drop-TAD.
    """
    for name in STAND_INS:
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.path.insert(0, folder)
    if find_spec('nms_1d_cpu') is None:
        sys.path.insert(0, str(_compiled_suppression(Path(folder))))
    import opentad.datasets  # noqa: F401  (registers the pipelines)
    evaluate_in_process()
    if not dist.is_initialized():
        dist.init_process_group(
            'gloo', init_method=f'file://{mkdtemp()}/store', rank=0,
            world_size=1)


class InProcess:
    """Stands for ``multiprocessing`` in the published evaluation."""

    class Process:
        """Runs its target at once."""

        def __init__(self, target: Any, args: tuple = ()) -> None:
            self.target, self.args = target, args

        def start(self) -> None:
            """Run."""
            self.target(*self.args)

        def join(self) -> None:
            """It has ended already."""

    @staticmethod
    def Manager() -> Any:
        """Gives plain dictionaries."""
        return types.SimpleNamespace(dict=dict)


def evaluate_in_process() -> None:
    """Evaluate without a process per call, which costs more than the rest."""
    from opentad.evaluations import mAP
    sys.modules[mAP.__module__].mp = InProcess


def _compiled_suppression(folder: Path) -> Path:
    source = folder / 'opentad/models/utils/post_processing/nms'
    build = Path(mkdtemp())
    shutil.copytree(source, build / 'nms')
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_ext', '--inplace'],
        cwd=build / 'nms',
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    return build / 'nms'


def build(config: dict, drop_idx: list = ()) -> Any:
    """Build a published detector in evaluation mode.

    Args:
        config: One of the configs in ``pbd_detector_config.json``.
        drop_idx: Blocks to leave out.

    Returns:
        The detector.
    """
    from opentad.models import build_detector
    config = ConfigDict(copy.deepcopy(config))
    if drop_idx or 'drop_idx' in config.backbone.backbone:
        config.backbone.backbone.drop_idx = list(drop_idx)
    return build_detector(config).eval()
