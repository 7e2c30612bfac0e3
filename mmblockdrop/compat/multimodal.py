"""Let mmaction2 be imported beside transformers 5.

Defect: mmaction2 1.2.0 imports its multimodal models (VindLU) wherever
transformers>=4.28 is installed. They need a name that transformers 5 (and
already 4.57) no longer has, ``apply_chunking_to_forward`` in
``transformers.modeling_utils``, and timm, which mmaction2 does not ask for.
(On torch below 2.6 transformers 5 fails with a NameError.) peft brings
transformers along, so ``import mmaction.models`` fails as a whole for models
nobody asked for.

Patch: where that import fails, mmaction2's own placeholders are registered, as
it does itself without transformers. Where it succeeds nothing changes.

Unnecessary with: a release of mmaction2 that bounds transformers from above
or follows its version 5. None is published; 1.2.0 is the newest.
"""
from types import ModuleType

from .importing import on_failed_import

NAMES = ('VindLUVQA', 'VindLURetrievalMC', 'VindLURetrieval')


def _register_placeholders(module: ModuleType, error: Exception) -> None:
    """Register models that say, when built, why they are unavailable."""
    from mmaction.registry import MODELS

    module.__all__ = []  # type: ignore[attr-defined]
    for name in NAMES:

        def explain(*args, name: str = name, **kwargs) -> None:
            raise ImportError(
                f'{name} of mmaction2 cannot be used here: importing '
                f'{module.__name__} failed with "{error}". It needs timm and '
                'the transformers it was written for: '
                "pip install timm 'transformers==4.28.*'") from error

        MODELS.register_module(name=name, module=explain, force=True)


def patch() -> None:
    """Wait for the package to fail."""
    on_failed_import('mmaction.models.multimodal.vindlu',
                     _register_placeholders)
