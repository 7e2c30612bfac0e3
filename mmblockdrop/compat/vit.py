"""Make ``pretrained=`` of mmaction2's VideoMAE ViT load the checkpoint.

Defect: ``VisionTransformer.__init__`` writes ``self.init_cfg`` for
``pretrained`` before it calls ``super().__init__(init_cfg=init_cfg)``, which
overwrites it. ``init_weights`` then initializes at random and says nothing.

Patch: append the entry after construction. ``init_weights`` loads it last, so
parameters that the checkpoint lacks keep their random initialization.

Unnecessary with: a release of mmaction2 that keeps the entry. None is
published; 1.2.0 is the newest.
"""
import functools
import inspect
from types import ModuleType

from .importing import after_import


def _keep_pretrained(vit_mae: ModuleType) -> None:
    """Wrap the constructor."""
    construct = vit_mae.VisionTransformer.__init__
    signature = inspect.signature(construct)

    @functools.wraps(construct)
    def __init__(self, *args, **kwargs) -> None:
        construct(self, *args, **kwargs)
        arguments = signature.bind(self, *args, **kwargs).arguments
        if arguments.get('pretrained'):
            entries = self.init_cfg or []
            if isinstance(entries, dict):
                entries = [entries]
            self.init_cfg = [
                *entries,
                dict(type='Pretrained', checkpoint=arguments['pretrained'])
            ]

    vit_mae.VisionTransformer.__init__ = __init__


def patch() -> None:
    """Wait for mmaction2's VideoMAE backbone."""
    after_import('mmaction.models.backbones.vit_mae', _keep_pretrained)
