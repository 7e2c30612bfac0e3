"""Models for other runtimes: ONNX."""
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Sequence, Union

import torch
from torch import Tensor, nn

from .inputs import network
from .renumber import ExportError


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
