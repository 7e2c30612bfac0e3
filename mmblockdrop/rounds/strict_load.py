"""Let mmengine's runner load checkpoints strictly."""
from typing import Any, Optional, Sequence

from mmblockdrop.compression import (check_classes, meta_of, record_hint,
                                     record_of)
from mmblockdrop.registry import HOOKS
from mmblockdrop.utils.checkpoint import check_fit, state_dict_of
from mmblockdrop.utils.messages import require_file

from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from .rebuild import localizer_of

#: Config key that lets ``load_from`` name a checkpoint that fits in part.
PARTIALLY = 'load_partially'


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Rejects a checkpoint that is not the model of the config.

    mmengine loads what fits and leaves the rest at random values. With this
    hook, which ``tools/train.py`` and ``tools/test.py`` register, names,
    shapes and types have to agree, weights have to be finite, and the data
    has to have the classes of the model. ``load_partially = True`` in a
    config lets ``load_from`` start a training from what fits.
    """

    priority = 45  # after BlockDropHook, before EMAHook

    def __init__(self) -> None:
        self.classes: Optional[Sequence[str]] = None

    def before_run(self, runner: Runner) -> None:
        """Look for the checkpoint.

        Raises:
            FileNotFoundError: It does not exist; names the nearest.
            ValueError: ``load_partially`` is neither True nor False.
        """
        loads_partially(runner)
        if runner._load_from is not None:
            require_file(runner._load_from, _key(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model, before it is loaded.

        Raises:
            ValueError: See :func:`check_loaded`.
        """
        check_loaded(runner, checkpoint)
        meta = meta_of(checkpoint).get('dataset_meta')
        self.classes = meta.get('classes') if isinstance(meta, dict) else None

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of the data with those of the model.

        Raises:
            ValueError: There are more or fewer.
        """
        self._check(runner, runner.train_loop, 'train')
        if runner._val_loop is not None:
            self._check(runner, runner.val_loop, 'val')

    def before_val(self, runner: Runner) -> None:
        """See :meth:`before_train`."""
        self._check(runner, runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """See :meth:`before_train`; the order of the classes counts, too.

        Raises:
            ValueError: There are more or fewer, or in another order than in
                the checkpoint.
        """
        classes = self._check(runner, runner.test_loop, 'test')
        theirs = self.classes
        if not classes or not theirs or len(theirs) != len(classes):
            return
        first = next((i for i, (a, b) in enumerate(zip(classes, theirs))
                      if a != b), None)
        if first is None:
            return
        text = (f'class {first} of test_dataloader.dataset is '
                f'{classes[first]!r}, that of the checkpoint '
                f'{theirs[first]!r}')
        if {*classes} == {*theirs}:
            raise ValueError(f'{text}: the classes are in another order')
        runner.logger.warning(f'The names of the classes differ: {text}.')

    @staticmethod
    def _check(runner: Runner, loop: Any,
               name: str) -> Optional[Sequence[str]]:
        """Compare the number of classes; return their names."""
        dataset = loop.dataloader.dataset
        meta = getattr(dataset, 'metainfo', None) or {}
        metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
        classes = meta.get('classes')
        check_classes(
            localizer_of(runner.model),
            classes,
            f'{name}_dataloader.dataset',
            one_for_all=any(
                getattr(metric, key, None)
                for metric in metrics
                for key in ('class_agnostic', 'classifier')))
        return classes


def loads_partially(runner: Runner) -> bool:
    """Whether the config lets ``load_from`` fit in part.

    Args:
        runner: The runner. What it resumes has to fit as a whole.

    Returns:
        True or False.

    Raises:
        ValueError: ``load_partially`` is neither.
    """
    value = runner.cfg.get(PARTIALLY, False)
    if not isinstance(value, bool):
        raise ValueError(f'{PARTIALLY}={value!r}: expected True or False')
    return value and not runner._resume


def check_loaded(runner: Runner, checkpoint: Any) -> None:
    """Compare a checkpoint with the model of a runner that loads it.

    Args:
        runner: The runner; its model has lost what the record names.
        checkpoint: Content of the checkpoint.

    Raises:
        ValueError: It does not fit; lists the keys. Or it holds no state of
            a run, which ``--resume`` needs.
    """
    source = source_of(runner)
    meta = meta_of(checkpoint)
    for key in ('epoch', 'iter') if runner._resume else ():
        if not isinstance(meta.get(key), int):
            raise ValueError(f'{source} is not of a run that can go on: '
                             f'meta[{key!r}]={meta.get(key)!r}, expected a '
                             'whole number')
    hint = record_hint(checkpoint)
    if record_of(checkpoint, source) is not None and not any(
            hasattr(hook, 'record') for hook in runner.hooks):
        hint = ('; it was compressed: the config needs custom_hooks = '
                "[dict(type='mmblockdrop.BlockDropHook')]")
    partially = loads_partially(runner)
    if not runner._resume and not partially:
        hint += (f'; {PARTIALLY} = True in the config of a training starts '
                 'from what fits')
    check_fit(
        localizer_of(runner.model),
        state_dict_of(checkpoint, source),
        source,
        hint,
        partially=partially)


def source_of(runner: Runner) -> str:
    """Which checkpoint a runner loads, for errors.

    Args:
        runner: The runner.

    Returns:
        Config key or argument, and file.
    """
    path = runner._load_from or find_latest_checkpoint(runner.work_dir)
    return f'{_key(runner)}={str(path)!r}'


def _key(runner: Runner) -> str:
    """Where the checkpoint is named."""
    return '--resume' if runner._resume else 'load_from'
