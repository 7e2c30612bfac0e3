"""Let mmaction2 and mmpretrain be imported beside any transformers.

Defects: where transformers is installed, which peft brings along,

- mmaction2 1.2.0 imports its multimodal models (VindLU) with all others. They
  need a name that transformers lost in 4.56,
  ``apply_chunking_to_forward`` in ``transformers.modeling_utils``, and timm,
  which mmaction2 does not ask for. ``import mmaction.models`` then fails as a
  whole for models nobody asked for.
- mmpretrain 1.2.0 does the same with its own where pycocotools is there too.
- mmengine imports transformers, and that peft, for one optimizer, Adafactor.
  Together they take a quarter of the time in which a program starts.

Patch: Adafactor and mmaction2's multimodal models are imported when they are
built. Where mmpretrain's cannot be imported, its own placeholders are
registered, as it does itself without transformers.

Unnecessary with: releases of these packages that bound transformers from above
or follow its version 5, and import it late. None is published.
"""
import importlib
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Iterator

from .importing import after_import, around_import, on_failed_import

NAMES = ('VindLUVQA', 'VindLURetrievalMC', 'VindLURetrieval')
#: What mmpretrain registers placeholders for.
PRETRAIN = ('Blip2Caption', 'Blip2Retrieval', 'Blip2VQA', 'BlipCaption',
            'BlipNLVR', 'BlipRetrieval', 'BlipGrounding', 'BlipVQA',
            'Flamingo', 'OFA', 'ChineseCLIP', 'MiniGPT4', 'Llava', 'Otter',
            'CLIP', 'CLIPZeroShot', 'RAM', 'RAMNormal', 'RAMOpenset')
PACKAGE = 'mmaction.models.multimodal'
HINT = ('It needs timm and the transformers it was written for: pip install '
        "timm 'transformers<4.50'")


@contextmanager
def _without_transformers() -> Iterator[None]:
    """Let mmengine look for optimizers as if there were no transformers."""
    hide = 'transformers' not in sys.modules
    if hide:
        sys.modules['transformers'] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hide:
            del sys.modules['transformers']


def _register_adafactor(builder: ModuleType) -> None:
    """Register Adafactor, to be imported when it is built."""
    if 'Adafactor' in builder.OPTIMIZERS or not _is_installed('transformers'):
        return

    def adafactor(params: Any, **kwargs) -> Any:
        from transformers import Adafactor
        return Adafactor(params, **kwargs)

    builder.OPTIMIZERS.register_module(name='Adafactor', module=adafactor)


def _is_installed(name: str) -> bool:
    """Whether a package can be found, without importing it."""
    return name in sys.modules or find_spec(name) is not None


@contextmanager
def _without_multimodal() -> Iterator[None]:
    """Let mmaction2 register its placeholders."""
    dependency = importlib.import_module('mmaction.utils.dependency')
    there = dependency.WITH_MULTIMODAL
    dependency.WITH_MULTIMODAL = False
    try:
        yield
    finally:
        dependency.WITH_MULTIMODAL = there


def _build_when_asked(module: ModuleType) -> None:
    """Replace mmaction2's placeholders by what imports the models."""
    dependency = importlib.import_module('mmaction.utils.dependency')
    if not dependency.WITH_MULTIMODAL:
        return
    from mmaction.registry import MODELS

    for name in NAMES:

        def build(*args, name: str = name, **kwargs) -> Any:
            try:
                vindlu = importlib.import_module(f'{PACKAGE}.vindlu')
            except Exception as error:  # whatever transformers raises
                raise ImportError(
                    f'{name} of mmaction2 cannot be used here: importing '
                    f'{PACKAGE}.vindlu failed with "{error}". {HINT}'
                ) from error
            return getattr(vindlu, name)(*args, **kwargs)

        MODELS.register_module(name=name, module=build, force=True)

    def load(name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(importlib.import_module(f'{PACKAGE}.vindlu'), name)

    module.__getattr__ = load  # type: ignore[method-assign]


@contextmanager
def _in_the_place_of_placeholders() -> Iterator[None]:
    """Let mmaction2's models register themselves; undo it if they fail."""
    from mmaction.registry import MODELS
    placeholders = {
        name: MODELS.module_dict.pop(name)
        for name in NAMES if name in MODELS.module_dict
    }
    try:
        yield
    except BaseException:
        for name in list(MODELS.module_dict):
            if getattr(MODELS.module_dict[name], '__module__',
                       '').startswith(f'{PACKAGE}.vindlu'):
                del MODELS.module_dict[name]
        MODELS.module_dict.update(placeholders)
        raise


def _keep_the_rest(module: ModuleType, error: Exception) -> None:
    """Register mmpretrain's placeholders for what could not be imported."""
    from mmpretrain.registry import MODELS
    from mmpretrain.utils.dependency import register_multimodal_placeholder
    missing = [name for name in PRETRAIN if name not in MODELS.module_dict]
    register_multimodal_placeholder(missing, MODELS)


def patch() -> None:
    """Wait for the packages."""
    around_import('mmengine.optim.optimizer.builder', _without_transformers)
    after_import('mmengine.optim.optimizer.builder', _register_adafactor)
    around_import(PACKAGE, _without_multimodal)
    after_import(PACKAGE, _build_when_asked)
    around_import(f'{PACKAGE}.vindlu', _in_the_place_of_placeholders)
    on_failed_import('mmpretrain.models.multimodal', _keep_the_rest)
