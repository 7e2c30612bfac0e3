"""Low-rank adaptation of the linear layers of any module, by peft.

A wrapped layer computes ``x W^T + b + s (x A^T) B^T`` with A of shape
``[rank, in]``, B of shape ``[out, rank]`` and ``s = alpha / rank``
(LoRA, arXiv 2106.09685, equation 3). B starts at zero, so that a fresh
adapter changes nothing.
"""
from typing import List, Optional, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

ADAPTER = 'default'


def _linear_names(module: nn.Module) -> List[str]:
    names = {
        name.split('.')[-1]
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear)
    }
    return sorted(names)


def lora_layers(module: nn.Module) -> List[nn.Module]:
    """List the layers of ``module`` that carry LoRA.

    Args:
        module (nn.Module): Any module.

    Returns:
        List[nn.Module]: peft's LoRA layers, in the order of the modules.
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


def check_lora(module: nn.Module,
               rank: int,
               targets: Sequence[str] = ('qkv', 'proj'),
               **kwargs) -> None:
    """Refuse arguments of :func:`add_lora` that cannot work.

    Args:
        module (nn.Module): Module whose layers would be adapted.
        rank (int): See :func:`add_lora`.
        targets (Sequence[str]): See :func:`add_lora`.
        **kwargs: Other arguments of :func:`add_lora`, not looked at.

    Raises:
        ValueError: ``rank`` is not positive, or no layer has such a name.
    """
    if rank < 1:
        raise ValueError(f'lora.rank is {rank}, expected a positive number')
    names = _linear_names(module)
    missing = [t for t in targets if t not in names]
    if missing:
        raise ValueError(f'lora.targets names {missing}, but the linear '
                         f'layers of {type(module).__name__} are called '
                         f'{names}')


def add_lora(module: nn.Module,
             rank: int,
             alpha: Optional[float] = None,
             targets: Sequence[str] = ('qkv', 'proj'),
             dropout: float = 0.) -> int:
    """Attach LoRA to the linear layers called ``targets``, in place.

    The weights of the wrapped layers are frozen; every other parameter
    keeps its ``requires_grad``.

    Args:
        module (nn.Module): Module whose layers are adapted.
        rank (int): Rank of the update.
        alpha (float, optional): The update is scaled by ``alpha / rank``.
            Defaults to ``rank``, which is a scale of one as in the
            published code.
        targets (Sequence[str]): Last part of the names of the layers.
        dropout (float): Dropout on the input of the adapter.

    Returns:
        int: Number of adapted layers.

    Raises:
        ValueError: ``rank`` is not positive, no layer has such a name, or
            LoRA is there already.
    """
    from peft import LoraConfig, inject_adapter_in_model
    if has_lora(module):
        raise ValueError(
            'This module carries LoRA already: merge_lora() it first.')
    check_lora(module, rank, targets)
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
        module (nn.Module): Module with or without LoRA.

    Returns:
        int: Number of merged layers.

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
