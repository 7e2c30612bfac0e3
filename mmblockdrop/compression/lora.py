"""Low-rank adaptation of the linear layers of any module, by peft.

A wrapped layer computes ``x W^T + b + s (x A^T) B^T`` with A of shape
``[rank, in]``, B of shape ``[out, rank]`` and ``s = alpha / rank``
(LoRA, arXiv 2106.09685, equation 3). B starts at zero, so that a fresh
adapter changes nothing.
"""
from typing import Dict, List, Optional, Sequence, Union

from mmblockdrop.utils.messages import did_you_mean, listed

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

ADAPTER = 'default'
#: Layers that are adapted unless others are named: those of attention.
TARGETS = ('qkv', 'proj')
Modules = Union[nn.Module, Sequence[nn.Module]]


def _listed(modules: Modules) -> List[nn.Module]:
    return [modules] if isinstance(modules, nn.Module) else list(modules)


def linear_names(modules: Modules) -> Dict[str, bool]:
    """Names of the linear layers that LoRA could adapt.

    Args:
        modules: What holds them.

    Returns:
        Last part of each name to whether such a layer is called; what reads
        the weight itself would ignore LoRA.
    """
    names: Dict[str, bool] = {}
    for module in _listed(modules):
        for path, parent in module.named_modules():
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    # It multiplies with the weight of its layer by itself.
                    called = not isinstance(parent, nn.MultiheadAttention)
                    names[name] = called or names.get(name, False)
    return dict(sorted(names.items()))


def lora_layers(module: nn.Module) -> List[nn.Module]:
    """List the layers of ``module`` that carry LoRA.

    Args:
        module: Any module.

    Returns:
        Peft's LoRA layers, in the order of the modules.
    """
    if not has_lora(module):
        return []
    from peft.tuners.lora import LoraLayer
    return [m for m in module.modules() if isinstance(m, LoraLayer)]


def has_lora(module: nn.Module) -> bool:
    """Whether any layer of ``module`` carries LoRA."""
    return any('.lora_A.' in f'.{name}' for name, _ in
               module.named_parameters())


def _accept_plain_weights(layer: nn.Module) -> None:
    """Let a LoRA layer load the weights of the layer that it wraps.

    A checkpoint written before LoRA was attached, or after it was merged,
    holds ``weight`` and ``bias``; they go to the wrapped layer, and the
    adapter keeps what it has.
    """

    def rename(state_dict: dict, prefix: str, *args) -> None:
        plain = [n for n in ('weight', 'bias') if prefix + n in state_dict]
        for name in plain:
            state_dict[f'{prefix}base_layer.{name}'] = state_dict.pop(
                prefix + name)
        if plain:
            for name, value in layer.state_dict().items():
                if name.startswith('lora_'):
                    state_dict.setdefault(prefix + name, value)

    layer._register_load_state_dict_pre_hook(rename)


def check_lora(modules: Modules,
               rank: int,
               targets: Sequence[str] = TARGETS,
               **kwargs) -> None:
    """Check arguments of :func:`add_lora`.

    Args:
        modules: What would be adapted.
        rank: See :func:`add_lora`.
        targets: See :func:`add_lora`.
        **kwargs: Other arguments of :func:`add_lora`, not looked at.

    Raises:
        ValueError: ``rank`` is not positive, no layer has such a name, or
            its weight is read without calling it; lists the names of the
            linear layers.
    """
    if rank < 1:
        raise ValueError(f'lora.rank={rank}: expected a positive number')
    names = linear_names(modules)
    kinds = ', '.join(sorted({type(m).__name__ for m in _listed(modules)}))
    possible = [name for name, called in names.items() if called]
    if not possible:
        raise ValueError(
            f'lora.targets names {list(targets)}, but {kinds} has no linear '
            'layer that LoRA could adapt: train the weights themselves, with '
            'lora=None')
    missing = [t for t in targets if t not in names]
    if missing:
        raise ValueError(
            f'lora.targets names {missing}: expected linear layers of '
            f'{kinds}, {listed(possible)}{did_you_mean(missing[0], possible)}')
    ignored = [t for t in targets if not names[t]]
    if ignored:
        raise ValueError(_ignored(ignored, possible))


def check_called(idle: Sequence[str],
                 targets: Sequence[str] = TARGETS,
                 **kwargs) -> None:
    """Check that a model calls the targets of LoRA.

    mmaction2's ``VisionTransformer``, for one, multiplies with
    ``qkv.weight``; LoRA on ``qkv`` would be trained and change nothing.

    Args:
        idle: Dotted paths of the linear layers that were not called in a
            forward pass, as ``BlockStack.idle``.
        targets: See :func:`add_lora`.
        **kwargs: Other arguments of :func:`add_lora`, not looked at.

    Raises:
        ValueError: A target is among them.
    """
    for path in idle:
        name = path.rpartition('.')[2]
        if name in targets:
            rest = [t for t in targets if t != name]
            hint = (' mmblockdrop.LoRAViT calls it and has the same parameter '
                    'names.' if name == 'qkv' else '')
            raise ValueError(_ignored([name], rest, path) + hint)


def _ignored(names: Sequence[str], rest: Sequence[str],
             path: Optional[str] = None) -> str:
    where = f' ({path})' if path else ''
    return (f'lora.targets names {list(names)}{where}, whose weight the model '
            'reads without calling the layer, so that LoRA would be ignored. '
            f'Possible targets: {list(rest) or "none"}.')


def add_lora(modules: Modules,
             rank: int,
             alpha: Optional[float] = None,
             targets: Sequence[str] = TARGETS,
             dropout: float = 0.) -> int:
    """Attach LoRA to the linear layers called ``targets``, in place.

    The weights of the wrapped layers are frozen; every other parameter
    keeps its ``requires_grad``.

    Args:
        modules: What is adapted. Those of several modules that have no such
            layer stay as they are.
        rank: Rank of the update.
        alpha: The update is scaled by ``alpha / rank``. Defaults to ``rank``,
            which is a scale of one as in the published code.
        targets: Last part of the names of the layers.
        dropout: Dropout on the input of the adapter.

    Returns:
        Number of adapted layers.

    Raises:
        ValueError: See :func:`check_lora`; or LoRA is there already.
    """
    if any(has_lora(module) for module in _listed(modules)):
        raise ValueError(
            'This module carries LoRA already: merge_lora() it first.')
    check_lora(modules, rank, targets)
    return sum(
        _add_lora(module, rank, alpha, targets, dropout)
        for module in _listed(modules)
        if set(targets) & set(linear_names(module)))


def _add_lora(module: nn.Module, rank: int, alpha: Optional[float],
              targets: Sequence[str], dropout: float) -> int:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise ImportError(
            f'LoRA needs {error.name}, which is not installed: '
            "pip install 'mmblockdrop[lora]', or leave lora out of the "
            'config to train the weights themselves') from error
    trainable = {
        id(p): p.requires_grad
        for p in module.parameters()
    }
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=list(targets),
        lora_dropout=dropout)
    inject_adapter_in_model(config, module, ADAPTER)
    for parameter in module.parameters():
        if id(parameter) in trainable:
            parameter.requires_grad = trainable[id(parameter)]
    layers = lora_layers(module)
    for layer in layers:
        for parameter in layer.get_base_layer().parameters():
            parameter.requires_grad = False
        _accept_plain_weights(layer)
    return len(layers)


def reset_lora(module: nn.Module) -> None:
    """Give every adapter of ``module`` a fresh start (B is zero)."""
    for layer in lora_layers(module):
        layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)


@torch.no_grad()
def merge_lora(module: nn.Module) -> int:
    """Fold the adapters of ``module`` into the layers they wrap, in place.

    ``W <- W + s B A``; the function stays the same and the names of the
    parameters are again those of the model without LoRA.

    Args:
        module: Module with or without LoRA.

    Returns:
        Number of merged layers.

    Raises:
        ValueError: An adapter holds NaN or infinite values. Nothing has
            been changed then.
    """
    layers = lora_layers(module)
    for layer in layers:
        _check_finite(layer.lora_A[ADAPTER].weight,
                      layer.lora_B[ADAPTER].weight)
    ids = {id(layer) for layer in layers}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in ids:
                child.merge(safe_merge=True)
                base = child.get_base_layer()
                for parameter in base.parameters():
                    parameter.requires_grad = True
                setattr(parent, name, base)
    for child in module.modules():
        child.__dict__.pop('peft_config', None)
    if layers:
        print_log(f'Merged LoRA of {len(layers)} layers', 'current')
    return len(layers)


def _check_finite(*tensors: Tensor) -> None:
    if not all(torch.isfinite(t).all() for t in tensors):
        raise ValueError(
            'LoRA weights hold NaN or infinite values and are not merged: '
            'the training before this diverged.')
