"""Train or test a dumped toy config in processes of its own.

``python run_config.py train|test CONFIG ...``, or the same under torchrun.
"""
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import toy
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner


class SameOnAllProcesses(Hook):
    """Stops a run whose processes drift apart."""

    def after_train_epoch(self, runner: Runner) -> None:
        """Compare a checksum of the trained weights."""
        mine = sum(p.double().abs().sum().item()
                   for p in runner.model.parameters())
        everywhere = all_gather_object(mine)
        assert len(set(everywhere)) == 1, everywhere


def main(step: str, path: str) -> None:
    """Run one step and leave the metrics of a test beside the config."""
    cfg = Config.fromfile(path, format_python_code=False)
    if 'RANK' in os.environ:
        cfg.launcher = 'pytorch'
    runner = Runner.from_cfg(cfg)
    if step == 'train':
        runner.register_hook(SameOnAllProcesses())
        runner.train()
    else:
        metrics = runner.test()
        if is_main_process():
            Path(path).with_suffix('.json').write_text(json.dumps(metrics))


if __name__ == '__main__':
    for config in sys.argv[2:]:
        main(sys.argv[1], config)
