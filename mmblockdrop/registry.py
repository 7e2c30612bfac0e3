"""Child registries of MMEngine.

MMEngine imports exactly this module when it meets a type written
``mmblockdrop.X``, and ``locations`` then import the package that defines
``X``. Types are therefore found from any config, whatever its
``default_scope``, and nothing heavy is imported before it is needed.
"""
import functools
from typing import Any, Callable, Type, TypeVar

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import \
    WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

C = TypeVar('C', bound=Type[Any])

DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmblockdrop',
    locations=['mmblockdrop.data', 'mmblockdrop.parity.data'])
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mmblockdrop',
    locations=['mmblockdrop.data'])
MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmblockdrop',
    locations=[
        'mmblockdrop.backbones', 'mmblockdrop.localizers',
        'mmblockdrop.distillation', 'mmblockdrop.parity.models'
    ])
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmblockdrop',
    locations=['mmblockdrop.evaluation', 'mmblockdrop.parity.metrics'])
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmblockdrop',
    locations=['mmblockdrop.rounds', 'mmblockdrop.inference'])
LOOPS = Registry(
    'loop',
    parent=MMENGINE_LOOPS,
    scope='mmblockdrop',
    locations=['mmblockdrop.rounds'])
#: What ``init_cfg`` names.
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope='mmblockdrop',
    locations=['mmblockdrop.backbones'])
#: Rules that score the candidates of a round.
SCORERS = Registry(
    'scorer', scope='mmblockdrop', locations=['mmblockdrop.scorers'])
#: What the rounds of a run cut.
STRUCTURES = Registry(
    'structure', scope='mmblockdrop', locations=['mmblockdrop.compression'])
#: Repairs of a model that has lost parts, without training.
REPAIRS = Registry(
    'repair', scope='mmblockdrop', locations=['mmblockdrop.compression'])


def replaced_by(other: str, *arguments: str) -> Callable[[C], C]:
    """Decorate a class whose arguments became a class of their own.

    Args:
        other: Registered name of the class that does what they did.
        arguments: Their names. Giving one is a ``TypeError`` that names
            ``other``; they are not in the signature.

    Returns:
        The decorator.
    """

    def decorate(cls: C) -> C:
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def checked(self: Any, *args: Any, **kwargs: Any) -> None:
            for key in arguments:
                if key in kwargs:
                    raise TypeError(
                        f'{key}={kwargs[key]!r} is no longer an argument of '
                        f'{cls.__name__}; remove it and use type={other!r} '
                        'to repeat the published code')
            init(self, *args, **kwargs)

        cls.__init__ = checked  # type: ignore[misc]
        return cls

    return decorate
