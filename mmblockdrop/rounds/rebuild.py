"""The model of a runner, and what is built anew after blocks are dropped."""
import copy
from typing import Any, Sequence, Union

from mmblockdrop.registry import MODELS
from mmblockdrop.utils.config import schedulers_within

from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def plain_model(model: nn.Module) -> nn.Module:
    """Take off the distributed wrapper.

    Args:
        model: ``runner.model``.

    Returns:
        The model itself.
    """
    return model.module if is_model_wrapper(model) else model


def localizer_of(model: nn.Module) -> nn.Module:
    """Find the localizer that is trained and tested.

    Args:
        model: ``runner.model``.

    Returns:
        The student of a ``TeacherStudentWrapper``, or the model itself.
    """
    model = plain_model(model)
    return getattr(model, 'student', model)


def fresh_localizer(runner: Runner) -> nn.Module:
    """Build the uncompressed localizer of a run once more.

    Args:
        runner: The runner.

    Returns:
        The localizer, with weights of its own, on the device of the one that
        is trained.
    """
    model = plain_model(runner.model)
    cfg = getattr(model, 'localizer', None) if hasattr(
        model, 'student') else runner.cfg.model
    fresh = MODELS.build(copy.deepcopy(cfg))
    return fresh.to(next(model.parameters()).device)


def replace_localizer(runner: Runner, localizer: nn.Module) -> None:
    """Go on with another localizer in the place of the one that is trained.

    Args:
        runner: The runner. What holds parameters is not rebuilt.
        localizer: The other one.
    """
    model = plain_model(runner.model)
    if hasattr(model, 'student'):
        model.student = localizer
    elif is_model_wrapper(runner.model):
        runner.model.module = localizer
    else:
        runner.model = localizer


def rebuild_ema(runner: Runner) -> None:
    """Let ``EMAHook`` copy the model as it is now.

    The hook copies it before a run, and swaps parameters by their position.

    Args:
        runner: The runner.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.before_run(runner)


class Recipe:
    """The configs that optimizer and schedulers are built from.

    Must be made before ``Runner.train`` replaces the configs by objects;
    :class:`~mmblockdrop.rounds.loop.DistillationLoop` does so when it is
    built. A scheduler without ``end`` ends with its round.

    Args:
        runner: The runner.
        epochs: Epochs of a round. Without any there are no schedulers.
        iters: Iterations of a round.
        param_scheduler: Schedulers in place of the runner's.
    """

    def __init__(self,
                 runner: Runner,
                 epochs: int,
                 iters: int,
                 param_scheduler: Union[Sequence[dict], dict,
                                        None] = None) -> None:
        if not epochs:
            runner.param_schedulers = None
        self.optim_wrapper = copy.deepcopy(runner.optim_wrapper)
        self.param_schedulers: Any = copy.deepcopy(
            runner.param_schedulers if param_scheduler is None or not epochs
            else param_scheduler)
        if isinstance(self.param_schedulers, dict):
            self.param_schedulers = [self.param_schedulers]
        if self.param_schedulers is not None:
            self.param_schedulers = schedulers_within(self.param_schedulers,
                                                      epochs, iters)
        for cfg in self.param_schedulers or []:
            if 'type' in cfg:
                by_epoch = cfg.get('by_epoch', True)
                cfg.setdefault('end', epochs if by_epoch else iters)

    def rebuild(self, runner: Runner) -> None:
        """Wrap the model again; new optimizer, schedulers and EMA.

        Args:
            runner: The runner, with the shortened model.
        """
        runner.model = runner.wrap_model(
            runner.cfg.get('model_wrapper_cfg'), plain_model(runner.model))
        runner.optim_wrapper = runner.build_optim_wrapper(
            copy.deepcopy(self.optim_wrapper))
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if self.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(
                copy.deepcopy(self.param_schedulers))
        rebuild_ema(runner)
