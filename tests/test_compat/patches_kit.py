"""What the tests of the patches share."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


def start(code: str, **variables: str) -> subprocess.Popen:
    """Start a Python process that imports from this repository."""
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code],
                            env=dict(
                                os.environ, PYTHONPATH=str(ROOT), **variables),
                            stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE,
                            text=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


class Toy(BaseModel):
    """One weight, with the loss its square."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=(self.weight**2).sum())


def toy_runner(work_dir, name: str, max_epochs: int, **kwargs) -> Runner:
    return Runner(
        model=Toy(),
        work_dir=str(work_dir),
        experiment_name=name,
        train_dataloader=dict(
            dataset=[dict(inputs=torch.zeros(1))] * 4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        log_level='ERROR',
        **kwargs)


class Calls:
    """Pickles as a call of any function, and a state of what it returns."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args, state)

    def __reduce__(self):
        return self.call
