"""Run a model as a function of one tensor, and write it as ONNX."""
import logging
import math
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from mmblockdrop.utils.config import type_name

import torch
from mmengine.config import Config
from torch import Tensor, nn

#: What the frames of :func:`example_inputs` are drawn with.
SEED = 0


class ExportError(ValueError):
    """A model cannot be written; says why and what to do."""


class Network(nn.Module):
    """A model as a function from one tensor to a tuple of tensors.

    Args:
        model: A ``BaseModel``, run in mode 'tensor', or any module that takes
            one tensor.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.kwargs: Dict[str, Any] = {}
        self.unwrapped = hasattr(model, '_forward')  # mmaction2's models
        if self.unwrapped:
            if getattr(model, 'with_cls_head', False):
                self.kwargs['stage'] = 'head'
        elif hasattr(model, 'data_preprocessor'):
            self.kwargs = dict(data_samples=None, mode='tensor')

    def forward(self, inputs: Tensor) -> Tuple[Tensor, ...]:
        """Run the model.

        Args:
            inputs: What the model takes.

        Returns:
            All tensors of its output, in order.
        """
        call = self.model._forward if self.unwrapped else self.model
        return tuple(tensors_of(call(inputs, **self.kwargs)))


def network(model: nn.Module) -> Network:
    """Make a model a function of one tensor, in evaluation mode.

    Args:
        model: See :class:`Network`.

    Returns:
        The function.
    """
    return Network(model).eval()


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts, in order.

    Args:
        value: What a model returned.

    Yields:
        One after the other.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_of(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors_of(entry)


@torch.no_grad()
def difference(model: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    """Largest difference between the outputs of two models.

    Args:
        model: See :class:`Network`.
        other: Another one.
        inputs: What both take.

    Returns:
        Largest absolute difference of two numbers; infinite if the outputs
        differ in number or shape, or are not numbers.
    """
    first = network(model)(inputs)
    second = network(other)(inputs)
    if [a.shape for a in first] != [b.shape for b in second]:
        return float('inf')
    gaps = [
        float((a.double() - b.double()).abs().max())
        for a, b in zip(first, second) if a.numel()
    ]
    return float('inf') if any(map(math.isnan, gaps)) else max([0., *gaps])


def example_inputs(cfg: Config,
                   model_cfg: dict,
                   shape: Optional[Sequence[int]] = None) -> Tensor:
    """Random frames or features as a config tests with.

    Args:
        cfg: A whole config.
        model_cfg: Its model.
        shape: Shape of the inputs. Defaults to None, what ``test_dataloader``
            or the model tells.

    Returns:
        Inputs, as they come out of the data preprocessor.

    Raises:
        ValueError: The config does not tell the shape.
    """
    found = tuple(shape or ()) or input_shape(cfg, model_cfg)
    if found is None:
        raise ValueError(
            'The config does not tell the shape of the inputs: '
            'test_dataloader.dataset needs a window_size or SampleFrames, '
            'and a Resize or CenterCrop of fixed size. Give --shape, for '
            'example --shape 1 1 3 16 224 224')
    return torch.randn(found, generator=torch.Generator().manual_seed(SEED))


def input_shape(cfg: Config, model_cfg: dict) -> Optional[Tuple[int, ...]]:
    """Shape of the inputs for one window.

    Args:
        cfg: A whole config.
        model_cfg: Its model.

    Returns:
        (1, 1, channels, frames, height, width), or (1, channels, grid steps)
        for features; None if neither test data nor model tell.
    """
    return _features(model_cfg) or _frames(cfg, model_cfg)


def _features(model: dict) -> Optional[Tuple[int, ...]]:
    """Shape for a localizer that takes features."""
    if model.get('backbone'):
        return None
    if 'feat_dim' in model and 'temporal_dim' in model:  # BMN and its kind
        return 1, model['feat_dim'], model['temporal_dim']
    projection = model.get('projection') or {}
    if 'in_channels' in projection and 'window_size' in model:
        return 1, projection['in_channels'], model['window_size']
    return None


def _frames(cfg: Config, model: dict) -> Optional[Tuple[int, ...]]:
    """Shape for a model that takes frames, as the test pipeline gives it."""
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader')
               or {}).get('dataset') or {}
    steps = list(_flat(dataset.get('pipeline') or []))
    size, crops, frames = None, 1, None
    for step in steps:
        kind = type_name(step)
        if kind == 'Resize' and not step.get('keep_ratio', True):
            size = step['scale'][::-1]
        elif kind in ('CenterCrop', 'SquareCrop', 'ThreeCrop', 'TenCrop'):
            size = step['crop_size']
            size = (size, size) if isinstance(size, int) else size[::-1]
            crops = dict(ThreeCrop=3, TenCrop=10).get(kind, 1)
        elif kind.endswith('SampleFrames') and 'clip_len' in step:
            frames = step['clip_len']
            crops *= step.get('num_clips', 1)
    if 'window_size' in dataset:
        frames = dataset['window_size'] * dataset.get('frames_per_step', 1)
    if size is None or frames is None:
        return None
    channels = (model.get('backbone') or {}).get('in_channels', 3)
    return (1, crops, channels, frames, *size)


def _flat(pipeline: Sequence[dict]) -> Iterator[dict]:
    """Steps of a pipeline, those inside other steps included."""
    for step in pipeline:
        yield step
        inner: List[dict] = list(step.get('transforms') or [])
        yield from _flat(inner)


def write_onnx(model: nn.Module, inputs: Tensor, out_dir: Path,
               part: str) -> Dict[str, Any]:
    """Write ``model.onnx`` or ``encoder.onnx`` into a folder.

    Args:
        model: The compressed model.
        inputs: One sample of its inputs.
        out_dir: The folder, made if need be.
        part: 'model' or 'encoder'.

    Returns:
        What :func:`to_onnx` returns, with ``file`` and its size in ``bytes``.

    Raises:
        ExportError: There is no encoder, or ONNX cannot express the model.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f'{part}.onnx'
    encoder = getattr(model, 'backbone', None)
    if part == 'encoder' and encoder is None:
        raise ExportError('--onnx encoder: the model has no backbone')
    try:
        if part == 'encoder':
            found = to_onnx(encoder, _first_input(model, inputs), path)
        else:
            found = to_onnx(model, inputs, path)
    except ExportError as error:
        hint = ''
        if part == 'model' and encoder is not None:
            hint = ' The encoder alone may work: --onnx encoder.'
        raise ExportError(f'{error}.{hint}') from None
    return dict(found, file=path.name, bytes=path.stat().st_size)


def _first_input(model: nn.Module, inputs: Tensor) -> Tensor:
    """One sample of what the encoder is given first when the model runs."""
    seen: List[Tensor] = []
    handle = model.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    try:
        network(model)(inputs)
    finally:
        handle.remove()
    return seen[0][:1].detach()


def to_onnx(model: nn.Module,
            inputs: Tensor,
            path: Union[str, Path],
            tolerance: float = 1e-4,
            batch_sizes: Sequence[int] = (1, 3)) -> Dict[str, Any]:
    """Write a model as ONNX and compare it with onnxruntime.

    Outputs are called ``output_0``, ``output_1``, ... in the order of the
    tensors that mode 'tensor' gives. The first dimension of ``inputs`` is
    free.

    Args:
        model: See :func:`~mmblockdrop.export.network`.
        inputs: An example.
        path: File to write.
        tolerance: Largest difference allowed, relative to the largest number
            of an output.
        batch_sizes: Sizes to compare.

    Returns:
        ``max_difference``, ``batch_sizes`` and ``outputs``, the shapes for
        ``inputs``.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
        ExportError: An operation has no counterpart in ONNX, or the outputs
            differ.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise ImportError(
            f'--onnx needs {error.name}: pip install -r '
            'requirements/onnx.txt') from error
    function = network(model)
    example = inputs.repeat(2, *[1] * (inputs.dim() - 1))
    with torch.no_grad(), _quiet():
        outputs = function(inputs)
        names = [f'output_{i}' for i in range(len(outputs))]
        try:
            torch.onnx.export(
                function, (example, ),
                str(path),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=['inputs'],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC}, ))
        except Exception as error:  # torch raises of many kinds
            raise ExportError('ONNX has no counterpart for this model: '
                              f'{_reason(error)}') from error
    try:
        gap = _largest_gap(function, inputs, path, names, batch_sizes)
        if not gap <= tolerance:
            raise ExportError(f'{path}: outputs of onnxruntime differ by '
                              f'{gap:.2g} from those of the model')
    except Exception:
        Path(path).unlink()
        raise
    return dict(
        max_difference=gap,
        batch_sizes=list(batch_sizes),
        outputs={n: list(o.shape) for n, o in zip(names, outputs)})


def _reason(error: BaseException) -> str:
    """What lies under the exporter's own words."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0][:300]}'


def _largest_gap(function: nn.Module, inputs: Tensor, path: Union[str, Path],
                 names: Sequence[str], batch_sizes: Sequence[int]) -> float:
    """Difference of onnxruntime's outputs, relative to the largest number."""
    import onnxruntime
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])
    gap = 0.
    generator = torch.Generator().manual_seed(1)
    for size in batch_sizes:
        batch = torch.randn((size, *inputs.shape[1:]), generator=generator)
        with torch.no_grad():
            expected = function(batch)
        found = session.run(names, {'inputs': batch.numpy()})
        for name, a, b in zip(names, expected, found):
            a = a.double()
            if a.shape != b.shape:
                raise ExportError(
                    f'{path}: {name} of {size} inputs has shape '
                    f'{list(b.shape)}, the model gives {list(a.shape)}')
            scale = max(float(a.abs().max()), 1.)
            b = torch.from_numpy(b).double()  # masks are bool
            gap = max(gap, float((a - b).abs().max()) / scale)
    return gap


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the many remarks of torch's exporter."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
