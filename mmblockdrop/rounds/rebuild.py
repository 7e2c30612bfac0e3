"""Build anew what held on to the parameters before surgery."""
import copy
import difflib
from typing import Any, Collection, Dict, Sequence, Union

from mmblockdrop.registry import MODELS
from mmblockdrop.utils.progress import with_progress

import torch
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


def freeze_except(model: nn.Module,
                  frozen: Sequence[str],
                  trainable: Sequence[str],
                  fixed: Collection[str] = ()) -> int:
    """Choose what is trained.

    Args:
        model: The localizer.
        frozen: Dotted paths of the modules that are frozen, apart from what
            ``trainable`` names. Everything else is trained.
        trainable: Parts of parameter names.
        fixed: Names of parameters that stay frozen, as the localizer froze
            them itself.

    Returns:
        Number of trained values.
    """
    for parameter in model.parameters():
        parameter.requires_grad = True
    for path in frozen:
        for name, parameter in model.get_submodule(path).named_parameters():
            parameter.requires_grad = any(part in name for part in trainable)
    for name, parameter in model.named_parameters():
        if name in fixed:
            parameter.requires_grad = False
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_paths(model: nn.Module, paths: Sequence[str], key: str) -> None:
    """Refuse paths that name no module.

    Args:
        model: The localizer.
        paths: Dotted paths.
        key: Config key they come from.

    Raises:
        ValueError: Names the path and the nearest one that is there.
    """
    names = [name for name, _ in model.named_modules() if name]
    for path in paths:
        if path not in names:
            near = difflib.get_close_matches(path, names, n=1, cutoff=0.3)
            raise ValueError(
                f'{key} names {path!r}, which {type(model).__name__} does '
                f'not have; the nearest is {near[0] if near else names[0]!r}.')


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
        self.param_schedulers = copy.deepcopy(
            runner.param_schedulers if param_scheduler is None or not epochs
            else param_scheduler)
        schedulers = self.param_schedulers or []
        for cfg in [schedulers] if isinstance(schedulers,
                                              dict) else schedulers:
            if 'type' in cfg:
                by_epoch = cfg.get('by_epoch', True)
                cfg.setdefault('end', epochs if by_epoch else iters)

    def rebuild(self, runner: Runner, max_iters: int) -> None:
        """Wrap the model again; new optimizer, schedulers and EMA.

        Args:
            runner: The runner, with the shortened model.
            max_iters: Iterations of the whole run.
        """
        runner.model = runner.wrap_model(
            runner.cfg.get('model_wrapper_cfg'), plain_model(runner.model))
        runner.optim_wrapper = runner.build_optim_wrapper(
            copy.deepcopy(self.optim_wrapper))
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if self.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(
                copy.deepcopy(self.param_schedulers))
        runner.optim_wrapper.initialize_count_status(
            runner.model, runner.train_loop.iter, max_iters)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_run(runner)


def evaluate(model: nn.Module, dataloader: Any,
             evaluator: Any) -> Dict[str, float]:
    """Run validation without the hooks of the runner.

    Args:
        model: Model with ``val_step``, not wrapped.
        dataloader: Batches.
        evaluator: Fresh evaluator.

    Returns:
        Metrics, the same on every process.
    """
    model.eval()
    with torch.no_grad():
        for batch in with_progress(dataloader):
            evaluator.process(model.val_step(batch), batch)
    return evaluator.evaluate(len(dataloader.dataset))
