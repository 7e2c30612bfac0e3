"""An input of the size that a config tests with, and a plain call on it."""
import math
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

#: What the frames of :func:`example_inputs` are drawn with.
SEED = 0


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
    found = tuple(shape or ()) or _features(model_cfg) or _frames(
        cfg, model_cfg)
    if found is None:
        raise ValueError(
            'The config does not tell the shape of the inputs: '
            'test_dataloader.dataset needs a window_size or SampleFrames, '
            'and a Resize or CenterCrop of fixed size. Give --shape, for '
            'example --shape 1 1 3 16 224 224')
    return torch.randn(found, generator=torch.Generator().manual_seed(SEED))


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
        kind = str(step['type']).rsplit('.', 1)[-1]
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
