"""Parameters, multiply-accumulates and latency of a localizer.

Two countings stand side by side. ``macs`` counts every multiply-accumulate
of matrix products and convolutions, attention products included. ``paper``
repeats the counting of the Progressive Block Drop paper (made with *thop*),
which leaves out the FFN, the patch embedding, the attention products and
LoRA, and takes four operations per element of a layer norm.
"""
import logging
import statistics
import time
import warnings
from contextlib import ExitStack, contextmanager
from typing import (Any, Dict, Iterator, List, NamedTuple, Optional, Sequence,
                    Union)

from mmblockdrop.utils.meta import on_meta

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Inputs = Union[Tensor, Sequence[Tensor], Dict[str, Any]]
#: Operations per element of a layer norm in the paper's counting.
NORM_OPS = 4
#: Short passes are timed this often at most.
MOST_REPEATS = 500
#: Parts of a module's path that the paper's counting does not see.
UNSEEN_LINEAR = ('mlp', 'ffn', 'lora_')
UNSEEN_CONV = ('patch_embed', )


class Part(NamedTuple):
    """Cost of one part of a model.

    Attributes:
        params: Parameters.
        macs: All multiply-accumulates.
        paper: Those the paper counts.
    """
    params: int
    macs: int
    paper: int


def complexity(model: nn.Module,
               inputs: Inputs,
               data_samples: Optional[list] = None) -> Dict[str, Part]:
    """Cost of one forward pass, counted on the meta device.

    Neither memory nor time is spent on the pass, whatever the size of the
    model; the model itself is not touched. A localizer that predicts in the
    mode 'predict' only, as PEM, which reads its inputs from the samples, is
    run in it where it is.

    Args:
        model: Localizer, called as ``model(inputs, data_samples,
            mode='tensor')``; or any module called with the inputs alone.
        inputs: One window on any device; frames [1, 1, 3, F, H, W] or features
            [1, C, T], or a list of one sample; or a dict of all arguments of
            a ``forward`` that calls them otherwise.
        data_samples: Samples of the inputs.

    Returns:
        Cost by direct child, in the order of the model, ``'other'`` if
        something is computed outside, and ``'total'``.
    """
    mode = forward_mode(model, inputs, data_samples)
    if mode == 'tensor':
        model, inputs = on_meta(model), empty_inputs(inputs)
    training = model.training
    try:
        return _count(model.eval(), inputs, data_samples, mode)
    finally:
        model.train(training)


def _count(model: nn.Module, inputs: Inputs, data_samples: Optional[list],
           mode: str) -> Dict[str, Part]:
    """Cost by part of a model in evaluation mode."""
    macs: Dict[str, int] = {}
    paper: Dict[str, int] = {}
    children = [
        name for name, child in model.named_children()
        if name != 'data_preprocessor'
    ]
    with torch.no_grad(), _plain_attention(), warnings.catch_warnings():
        # Hooks of the counter complain about anything they cannot follow.
        warnings.simplefilter('ignore')
        with FlopCounterMode(display=False) as counter, ExitStack() as stack:
            for name in children:
                child = model.get_submodule(name)
                stack.enter_context(_counted(child, name, counter, macs))
                stack.enter_context(_counted_as_paper(child, name, paper))
            call(model, inputs, data_samples, mode)
            total = counter.get_total_flops() // 2
    parts = {
        name: Part(
            sum(p.numel() for p in model.get_submodule(name).parameters()),
            macs.get(name, 0), paper.get(name, 0))
        for name in children
    }
    parts = {name: part for name, part in parts.items() if any(part)}
    whole = Part(
        sum(p.numel() for p in model.parameters()), total,
        sum(part.paper for part in parts.values()))
    rest = Part(whole.params - sum(p.params for p in parts.values()),
                whole.macs - sum(p.macs for p in parts.values()), 0)
    if any(rest):
        parts['other'] = rest
    return dict(parts, total=whole)


def latency_ms(model: nn.Module,
               inputs: Inputs,
               data_samples: Optional[list] = None,
               repeats: int = 5,
               max_seconds: float = 10.) -> float:
    """Median time of a forward pass after one to warm up.

    Args:
        model: See :func:`complexity`.
        inputs: One window on the device of the model.
        data_samples: Samples of the inputs.
        repeats: Passes that are timed. Defaults to 5.
        max_seconds: No further pass is begun after this time. Defaults to 10.

    Returns:
        Milliseconds.
    """
    times = _time_in_turn([model], inputs, data_samples, repeats, max_seconds)
    return statistics.median(own for own, in times)


def compare_latency(model: nn.Module,
                    reference: nn.Module,
                    inputs: Inputs,
                    data_samples: Optional[list] = None,
                    pairs: int = 15,
                    min_seconds: float = 1.,
                    max_seconds: float = 10.) -> Dict[str, Any]:
    """Time a model and a reference in turn: reference, model, and so on.

    What else happens on the machine slows down both passes of a pair, so the
    ratio is far steadier than either time.

    Args:
        model: See :func:`complexity`.
        reference: Another model for the same inputs, as the uncompressed one.
        inputs: One window on the device of both.
        data_samples: Samples of the inputs.
        pairs: Least number of pairs of passes that are timed. Defaults to 15.
        min_seconds: Short passes go on until this time, for 500 pairs at
            most. Defaults to 1.
        max_seconds: No further pair is begun after this time. Defaults to 10.

    Returns:
        ``latency_ms``, the median time of the model; ``latency_ratio``, the
        median over the pairs of its time over that of the reference; and
        ``latency_spread``, the quartiles of that ratio.
    """
    times = _time_in_turn([reference, model], inputs, data_samples, pairs,
                          max_seconds, min_seconds)
    ratios = sorted(own / other for other, own in times)
    quartiles = statistics.quantiles(
        ratios, n=4, method='inclusive') if len(ratios) > 1 else ratios * 3
    return dict(
        latency_ms=statistics.median(own for _, own in times),
        latency_ratio=statistics.median(ratios),
        latency_spread=[quartiles[0], quartiles[2]])


def _time_in_turn(models: Sequence[nn.Module], inputs: Inputs,
                  data_samples: Optional[list],
                  repeats: int,
                  max_seconds: float,
                  min_seconds: float = 0.) -> List[List[float]]:
    """Milliseconds of each model, repeat by repeat, after one to warm up."""
    times: List[List[float]] = []
    training = [model.training for model in models]
    modes = [forward_mode(model, inputs, data_samples) for model in models]
    device = next((p.device for p in models[0].parameters()), None)
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            began = time.perf_counter()
            for number in range(MOST_REPEATS + 1):
                spent = time.perf_counter() - began
                if number and (spent > max_seconds or number > repeats
                               and spent > min_seconds):
                    break
                times.append([])
                for model, mode in zip(models, modes):
                    start = time.perf_counter()
                    call(model, inputs, data_samples, mode)
                    if device is not None and device.type == 'cuda':
                        torch.cuda.synchronize(device)
                    times[-1].append(1e3 * (time.perf_counter() - start))
    finally:
        for model, mode in zip(models, training):
            model.train(mode)
    return times[1:] or times


def measure(model: nn.Module,
            inputs: Inputs,
            data_samples: Optional[list] = None,
            repeats: int = 5,
            reference: Optional[nn.Module] = None) -> Dict[str, Any]:
    """What the record of a run keeps about the cost of a model.

    Args:
        model: See :func:`complexity`.
        inputs: One window on the device of the model.
        data_samples: Samples of the inputs.
        repeats: Passes that are timed without a reference. Defaults to 5.
        reference: The uncompressed model, which the model is timed in turn
            with. Defaults to None: the model is uncompressed itself.

    Returns:
        ``params``, ``macs`` (everything), ``paper_macs``, and ``latency_ms``,
        ``latency_ratio`` and ``latency_spread`` of :func:`compare_latency`.
        What a foreign model does not let measure is left out, with a warning.
    """
    found: Dict[str, Any] = dict(
        params=sum(p.numel() for p in model.parameters()))
    with _reported(model, 'MACs cannot be counted'):
        whole = complexity(model, inputs, data_samples)['total']
        found.update(macs=whole.macs, paper_macs=whole.paper)
    with _reported(model, 'latency cannot be timed'):
        if reference is not None:
            found.update(
                compare_latency(model, reference, inputs, data_samples))
        else:
            found.update(
                latency_ms=latency_ms(model, inputs, data_samples, repeats),
                latency_ratio=1.,
                latency_spread=[1., 1.])
    return found


@contextmanager
def _reported(model: nn.Module, what: str) -> Iterator[None]:
    """Warn of what goes wrong in a foreign model, and go on without it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign model may raise
        print_log(
            f'{what[0].upper()}{what[1:]} of {type(model).__name__}: '
            f'{type(error).__name__}: {error}',
            'current',
            level=logging.WARNING)


def forward_mode(model: nn.Module, inputs: Inputs,
                 data_samples: Optional[list] = None) -> str:
    """Mode in which a localizer computes its predictions.

    Args:
        model: See :func:`complexity`.
        inputs: One window.
        data_samples: Samples of the inputs.

    Returns:
        'tensor', or 'predict' for a localizer that cannot run in it on these
        inputs.
    """
    if data_samples is None and not isinstance(inputs, dict):
        return 'tensor'
    try:
        with torch.no_grad():
            call(on_meta(model).eval(), empty_inputs(inputs), data_samples)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # shapes do not fit, no such mode, values are needed
        return 'predict'
    return 'tensor'


def empty_inputs(inputs: Inputs) -> Inputs:
    """Inputs without values, on the meta device; samples as they are."""
    if isinstance(inputs, dict):
        return {key: empty_inputs(value) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return [empty_inputs(x) for x in inputs]
    if isinstance(inputs, Tensor):
        return torch.empty_like(inputs, device='meta')
    return inputs


def call(model: nn.Module, inputs: Inputs, data_samples: Optional[list],
         mode: str = 'tensor') -> Any:
    """Run a model on one window.

    Args:
        model: A localizer, or any module that takes inputs.
        inputs: The window.
        data_samples: Its samples.
        mode: Mode of the localizer.

    Returns:
        What the model returns.
    """
    if isinstance(inputs, dict):
        return model(**inputs, mode=mode)
    if hasattr(model, 'data_preprocessor'):
        return model(inputs, data_samples, mode=mode)
    return model(inputs)


@contextmanager
def _counted(module: nn.Module, name: str, counter: FlopCounterMode,
             macs: Dict[str, int]) -> Iterator[None]:
    """Add what a module computes to ``macs``, each time it is called."""
    began: List[int] = []

    def before(*_) -> None:
        began.append(counter.get_total_flops())

    def after(*_) -> None:
        spent = counter.get_total_flops() - began.pop()
        macs[name] = macs.get(name, 0) + spent // 2

    handles = [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _counted_as_paper(module: nn.Module, name: str,
                      paper: Dict[str, int]) -> Iterator[None]:
    """Add what the paper's counting sees of a module to ``paper``."""

    def hook(layer: nn.Module, args: tuple, out: Any) -> None:
        if isinstance(out, (tuple, list)):  # a masked convolution
            out = out[0]
        if isinstance(layer, nn.LayerNorm):
            ops = NORM_OPS * args[0].numel()
        elif isinstance(layer, nn.Linear):
            ops = out.numel() * layer.in_features
        else:
            ops = out.numel() * layer.weight[0].numel()
        paper[name] = paper.get(name, 0) + ops

    handles = [
        layer.register_forward_hook(hook)
        for path, layer in module.named_modules()
        if _seen_by_paper(f'{name}.{path}', layer)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _seen_by_paper(path: str, layer: nn.Module) -> bool:
    if isinstance(layer, nn.LayerNorm):
        return True
    if isinstance(layer, nn.Linear):
        return not any(part in path for part in UNSEEN_LINEAR)
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return not any(part in path for part in UNSEEN_CONV)
    return False


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as two matrix products, which the counter can see."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        with sdpa_kernel(SDPBackend.MATH):
            yield
    except ImportError:  # torch < 2.3
        with torch.backends.cuda.sdp_kernel(
                enable_flash=False, enable_mem_efficient=False):
            yield
