"""Where a repair may change weights, found by running the model.

Two kinds of places change a stream of tokens [tokens, C] linearly: the layers
of a block that write into it (:class:`Writers`), and all that makes the stream
in front of a stack (:class:`StreamMap`). Both give the input h of a linear
regression, and take its solution.
"""
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Sequence, Tuple)

from mmblockdrop.utils.recorder import INPUT, joined, record

import torch
from mmengine.dist import broadcast_object_list
from torch import Tensor, nn

from ..bypass import block_tensor
from ..spec import find_place, find_writers

#: A writing layer adds to the stream up to this share of what it is given;
#: weights of half precision are rounded to a few of their own steps.
TOLERANCE, HALF_STEPS = 1e-3, 8
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Run = Callable[[], Any]


class Stream(NamedTuple):
    """The values that a fit brings closer to the teacher's.

    Attributes:
        block: Dotted path of the block behind which they are taken; with
            ``:input`` behind it, of the block in front of which they are.
        axis: Axis of the channels.
        activation: Name inside the block of the activation that it ends with,
            as the ReLU of a bottleneck: the stream is what that is given. None
            for the output of the block.
        rectified: Whether that is a ReLU. Where the teacher's stream is
            negative, a student's that is not positive is as good.
    """
    block: str
    axis: int
    activation: Optional[str] = None
    rectified: bool = False

    @property
    def key(self) -> str:
        """Under which :func:`recorded` gives it."""
        return self.block if self.activation is None else (
            f'{self.block}.{self.activation}{INPUT}')

    def tokens(self, found: Dict[str, Any]) -> Tensor:
        """Take it out of what was recorded.

        Args:
            found: See :func:`recorded`.

        Returns:
            [tokens, C].
        """
        return tokens_of(found[self.key], self.axis)


class Place(ABC):
    """What a repair changes.

    Attributes:
        stream: The values that change with it.
        name: Dotted path of the layer, for the record.
        inputs: What must be recorded of the student besides the stream.
        widths: Columns of h that belong together, without that of the bias.
        has_bias: Whether a constant can be added.
    """
    stream: Stream
    name: str
    inputs: List[str]
    widths: List[int]
    has_bias: bool

    @property
    def columns(self) -> int:
        """Columns of h, with that of the bias."""
        return sum(self.widths) + self.has_bias

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels C of the stream."""

    @abstractmethod
    def hidden(self, found: Dict[str, Any]) -> Tensor:
        """Take h out of what was recorded.

        Args:
            found: See :func:`recorded`.

        Returns:
            [tokens, d], without the column of the bias.
        """

    @abstractmethod
    def tensors(self) -> List[Tensor]:
        """All that :meth:`add` may change."""

    @abstractmethod
    def add(self, change: Tensor) -> None:
        """Change the weights.

        Args:
            change: What is added to the stream is ``h @ change``; [d, C], or
                [d + 1, C] with the bias in the last row.
        """

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Put the weights back at the end of a ``with`` statement."""
        before = [t.clone() for t in self.tensors()]
        try:
            yield
        finally:
            self.restore(before)

    @torch.no_grad()
    def restore(self, before: Sequence[Tensor]) -> None:
        """Give the weights earlier values.

        Args:
            before: Copies of :meth:`tensors`.
        """
        for tensor, value in zip(self.tensors(), before):
            tensor.copy_(value)


class Writer(NamedTuple):
    """A layer of a block that writes into its stream.

    Attributes:
        name: Dotted path in the model.
        layer: ``nn.Linear``, or a convolution of kernel 1.
        scale: What its output is multiplied by on its way into the stream, as
            by LayerScale or a batch norm, [C].
        bias: What adds a constant, if anything: its own bias, or that of the
            norm behind it.
        bias_scale: What the bias is multiplied by on its way, [C].
    """
    name: str
    layer: nn.Module
    scale: Tensor
    bias: Optional[Tensor]
    bias_scale: Tensor


class Writers(Place):
    """One or several layers of a block that write into its stream.

    Args:
        stream: What they write into.
        writers: The layers, in the order in which they run.
    """

    def __init__(self, stream: Stream, writers: Sequence[Writer]) -> None:
        self.stream, self.writers = stream, list(writers)
        self.name = self.writers[-1].name
        self.inputs = [f'{w.name}{INPUT}' for w in self.writers]
        self.widths = [w.layer.weight.shape[1] for w in self.writers]
        self.biased = [w for w in self.writers if w.bias is not None]
        self.has_bias = bool(self.biased)

    def last(self) -> 'Writers':
        """The last of the layers alone; what it writes is exactly linear."""
        return Writers(self.stream, self.writers[-1:])

    @property
    def channels(self) -> int:
        """See :class:`Place`."""
        return len(self.writers[-1].scale)

    def hidden(self, found: Dict[str, Any]) -> Tensor:
        """See :class:`Place`: the inputs of the layers side by side."""
        return torch.cat([
            tokens_of(found[key], _channels(w.layer))
            for key, w in zip(self.inputs, self.writers)
        ], 1)

    def tensors(self) -> List[Tensor]:
        """See :class:`Place`."""
        return [w.layer.weight for w in self.writers
                ] + [w.bias for w in self.biased if w.bias is not None]

    @torch.no_grad()
    def add(self, change: Tensor) -> None:
        """See :class:`Place`."""
        parts = change[:sum(self.widths)].split(self.widths)
        for writer, part in zip(self.writers, parts):
            weight = writer.layer.weight
            part = (part / writer.scale.to(part)).T.reshape(weight.shape)
            weight += part.to(weight)
        for writer in self.biased[-1:]:
            assert writer.bias is not None
            added = change[-1] / writer.bias_scale.to(change)
            writer.bias.add_(added.to(writer.bias))


class StreamMap(Place):
    """An affine map of the stream before a stack, folded into its sources.

    The stream is a sum, such as patch embedding and position table; the map
    ``x -> x + x W + b`` is applied to each part, and b is added to one.

    Args:
        stream: The stream, in front of the first block.
        name: Dotted path of the first part, for the record.
        parts: Weights, biases and tables, each with its axis of channels.
        shift: Takes the constant; [.., C].
    """

    def __init__(self, stream: Stream, name: str,
                 parts: Sequence[Tuple[Tensor, int]],
                 shift: Optional[Tensor]) -> None:
        self.stream, self.name, self.inputs = stream, name, []
        self.parts, self.shift = list(parts), shift
        tensor, axis = self.parts[0]
        self.widths, self.has_bias = [tensor.shape[axis]], shift is not None

    @property
    def channels(self) -> int:
        """See :class:`Place`."""
        return self.widths[0]

    def hidden(self, found: Dict[str, Any]) -> Tensor:
        """See :class:`Place`: the stream itself."""
        return self.stream.tokens(found)

    def tensors(self) -> List[Tensor]:
        """See :class:`Place`."""
        return [tensor for tensor, _ in self.parts]

    @torch.no_grad()
    def add(self, change: Tensor) -> None:
        """See :class:`Place`."""
        matrix = change[:self.channels]
        for tensor, axis in self.parts:
            values = tensor.movedim(axis, -1)
            values += (values.double() @ matrix.double()).to(values)
        if self.shift is not None:
            self.shift.add_(change[-1].to(self.shift))


# ---------------------------------------------------------------- recording
def tokens_of(values: Any, axis: int) -> Tensor:
    """Lay features out as tokens.

    Args:
        values: What a module was given or returned.
        axis: Axis of the channels.

    Returns:
        [tokens, C].
    """
    return block_tensor(values).detach().movedim(axis, -1).flatten(0, -2)


@contextmanager
def recorded(model: nn.Module, streams: Iterable[Stream],
             inputs: Iterable[str] = ()) -> Iterator[Dict[str, Any]]:
    """Record streams and inputs of layers inside a ``with`` statement.

    Args:
        model: The model that runs.
        streams: What to record behind blocks.
        inputs: Paths as of :func:`mmblockdrop.utils.recorder.record`.

    Yields:
        Key of a stream, or path, to value.
    """
    streams = list(streams)
    plain = {s.block for s in streams if s.activation is None}
    with ExitStack() as stack:
        found = stack.enter_context(record(model, {*plain, *inputs}))
        for key, stream in {s.key: s for s in streams}.items():
            if stream.activation is not None:
                block = model.get_submodule(stream.block)

                def keep(value: Any, key: str = key) -> None:
                    found[key] = joined(key, found, value)

                stack.enter_context(
                    _last_input(block, stream.activation, keep))
        yield found


@contextmanager
def _last_input(block: nn.Module, name: str,
                callback: Callable[[Tensor], None]) -> Iterator[None]:
    """Call back with the last input of a submodule when a block has run."""
    last: List[Tensor] = []

    def note(module: nn.Module, args: tuple) -> None:
        last[:] = [args[0].clone()]  # it may work in place

    handles = [
        block.get_submodule(name).register_forward_pre_hook(note),
        block.register_forward_hook(lambda *_: callback(last[0]))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def agreed(value: Any) -> Any:
    """Take the main process's value in every process.

    Args:
        value: Plain data, with tensors on the CPU.

    Returns:
        That of the main process.
    """
    found = [value]
    broadcast_object_list(found)
    return found[0]


# ------------------------------------------------------- layers of a block
def writers_of(model: nn.Module, block: str, run: Run,
               several: bool = False) -> Optional[Writers]:
    """Find the layers of a block that write into its residual stream.

    Declared layers are tried first (:class:`~..spec.BlockSpec`), then all
    linear layers of the block, the last one first. A layer writes if adding
    numbers to its output adds the same, times a factor for each channel, to
    the block's output at the same tokens, while the output of later ones is
    held. Where the block ends with an activation, what that is given counts.

    Args:
        model: The model, in evaluation mode.
        block: Dotted path of the block.
        run: Runs the model once.
        several: Find all of them, not the last one alone.

    Returns:
        The layers; None if there are none. The same in every process.
    """
    module = model.get_submodule(block)
    scales = find_writers(model, block)
    names = dict.fromkeys([*list(scales)[::-1], *(
        f'{block}.{name}' for name, m in list(module.named_modules())[::-1]
        if name and _is_linear(m))])
    call = _first_call(module, run)
    found: List[Tuple[str, Tensor, Optional[str], Tensor]] = []
    stream = None
    endings = [None, *_last_activation(module, call)] if call else []
    for activation in endings:
        assert call is not None
        probe = _Probe(module, activation, *call)
        for name in names:
            layer = _submodule(model, name)
            response = probe.response(layer) if _is_linear(layer) else None
            if response is None:
                continue
            bias = None if layer.bias is None else name
            scale, bias_scale = response, response
            norm = (scales.get(name) or '').removesuffix('.weight')
            behind = _submodule(model, norm) if norm else None
            if bias is None and behind is not None and isinstance(
                    getattr(behind, 'bias', None), Tensor):
                found_scale = probe.response(behind)
                if found_scale is not None:
                    bias, bias_scale = norm, found_scale
            found.insert(0, (name, scale.cpu(), bias, bias_scale.cpu()))
            stream = Stream(
                block, probe.axis, activation,
                isinstance(_submodule(module, activation or ''), nn.ReLU))
            probe.hold(layer)
            if not several:
                break
        if found:
            break
    stream, found = agreed((stream, found))
    if stream is None:
        return None
    return Writers(stream, [
        Writer(name, model.get_submodule(name), scale,
               None if bias is None else _tensor(model, f'{bias}.bias'),
               bias_scale) for name, scale, bias, bias_scale in found
    ])


def _submodule(model: nn.Module, name: str) -> Any:
    """A module by its path; None if it left with its half of the block."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _is_linear(layer: Any) -> bool:
    """Whether a layer multiplies every token by one matrix."""
    if isinstance(layer, CONVOLUTIONS):
        return (set(layer.kernel_size) == {1} and set(layer.stride) == {1}
                and not any(layer.padding) and layer.groups == 1)
    return isinstance(layer, nn.Linear)


def _channels(layer: nn.Module) -> int:
    """Axis of the channels of what a layer is given and returns."""
    return -1 if isinstance(layer, (nn.Linear, nn.LayerNorm)) else 1


def _first_call(module: nn.Module, run: Run) -> Optional[Tuple[tuple, dict]]:
    """What a module is given when it first runs."""
    calls: List[Tuple[tuple, dict]] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)),
        with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return calls[0] if calls else None


def _last_activation(block: nn.Module,
                     call: Optional[Tuple[tuple, dict]]) -> List[str]:
    """Name of the module without weights that gives the block's output."""
    if call is None:
        return []
    last: Dict[str, Any] = {}
    handles = [
        m.register_forward_hook(
            lambda _, __, out, name=name: last.update({name: out}))
        for name, m in block.named_modules()
        if name and not any(m.children()) and not list(m.parameters())
    ]
    try:
        output = block_tensor(block(*call[0], **call[1]))
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, value in last.items() if value is output][:1]


class _Probe:
    """Adds to the outputs of layers of a block and looks at its stream."""

    def __init__(self, block: nn.Module, activation: Optional[str],
                 args: tuple, kwargs: dict) -> None:
        self.block, self.activation = block, activation
        self.args, self.kwargs = args, kwargs
        self.held: Dict[nn.Module, Tensor] = {}
        self.axis = -1

    def hold(self, layer: nn.Module) -> None:
        """From now on the output of a layer stays what it is."""
        self.held[layer] = self._run(watched=layer)[1][0]

    def response(self, layer: nn.Module) -> Optional[Tensor]:
        """Factor [C] of a layer's output in the stream, if it has one."""
        plain, outputs = self._run(watched=layer)
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
            return None
        ones = torch.ones_like(outputs[0])
        noise = torch.randn(
            ones.shape, generator=torch.Generator().manual_seed(0)).to(ones)
        size = plain.abs().max().clamp(min=1)
        wanted = tokens_of(noise, _channels(layer))
        tolerance = max(TOLERANCE, HALF_STEPS * torch.finfo(plain.dtype).eps)
        by_ones, by_noise = (
            self._run({layer: x})[0].float() - plain.float()
            for x in (ones, noise))
        for axis in (-1, 1):
            if plain.dim() < 2 or plain.shape[axis] != wanted.shape[1]:
                continue
            changed, drawn = (tokens_of(x, axis) for x in (by_ones, by_noise))
            if len(changed) != len(wanted):
                continue
            # Of most tokens, as those of padding may be huge and rounded.
            scale = changed.double().median(0).values
            if (scale - 1).abs().max() <= TOLERANCE:
                scale = torch.ones_like(scale)
            gap = max((changed - scale).abs().max(),
                      (drawn - scale * wanted).abs().max())
            if gap <= tolerance * size and (scale != 0).all():
                self.axis = axis
                return scale
        return None

    def _run(self,
             added: Optional[Dict[nn.Module, Tensor]] = None,
             watched: Optional[nn.Module] = None
             ) -> Tuple[Tensor, List[Any]]:
        """Run the block.

        Args:
            added: Layer to what is added to its output.
            watched: A layer.

        Returns:
            The stream, and what the watched layer gave, once for every call.
        """
        found: List[Tensor] = []
        outputs: List[Any] = []
        with ExitStack() as stack:
            for layer, value in self.held.items():
                stack.callback(layer.register_forward_hook(
                    lambda _, __, ___, value=value: value.clone()).remove)
            for layer, value in (added or {}).items():
                stack.callback(layer.register_forward_hook(
                    lambda _, __, out, value=value: out + value).remove)
            if watched is not None:
                stack.callback(watched.register_forward_hook(
                    lambda _, __, out: outputs.append(
                        out.clone() if isinstance(out, Tensor) else out)
                ).remove)
            if self.activation is not None:
                stack.enter_context(
                    _last_input(self.block, self.activation, found.append))
            output = self.block(*self.args, **self.kwargs)
        return (found or [block_tensor(output).clone()])[0], outputs


# ------------------------------------------------ what is before a stack
def stream_map_of(model: nn.Module, block: str,
                  run: Run) -> Optional[StreamMap]:
    """Find what makes the stream in front of a stack.

    A class declares it (``entry`` of :class:`~..spec.Stack`). Whether an
    affine map of the stream can be folded into it, a random one tells.

    Args:
        model: The model, in evaluation mode.
        block: Dotted path of the first block of a stack, there or removed.
        run: Runs the model once.

    Returns:
        The place; None where nothing is declared, or what is between it and
        the stack is not linear, as a norm. The same in every process.
    """
    place = find_place(model, block)
    names = []
    for entry in place.stack.entry if place is not None else ():
        path = f'{place.prefix}.{entry}'.lstrip('.') if place else entry
        names += [n for n in (path, f'{path}.weight', f'{path}.bias')
                  if isinstance(_tensor(model, n), Tensor)]
    if not names:
        return None
    tensors = {name: _tensor(model, name) for name in names}
    parts = [(t, 0 if name.endswith(('.weight', '.bias')) else -1)
             for name, t in tensors.items()]
    shifts = [n for n in names if not n.endswith('.weight')][::-1]
    found = None
    for shift in (*shifts, None):
        for axis in (-1, 1):
            candidate = StreamMap(
                Stream(f'{block}{INPUT}', axis), names[0], parts,
                None if shift is None else tensors[shift])
            if found is None and _folds(model, candidate, run):
                found = shift, axis
    found = agreed(found)
    if found is None:
        return None
    shift, axis = found
    return StreamMap(
        Stream(f'{block}{INPUT}', axis), names[0], parts,
        None if shift is None else tensors[shift])


def _tensor(model: nn.Module, path: str) -> Any:
    """A parameter or buffer by its path."""
    value: Any = model
    for name in path.split('.'):
        value = getattr(value, name, None)
    return value


def _folds(model: nn.Module, place: StreamMap, run: Run) -> bool:
    """Whether a random map of the sources is the same map of the stream."""

    def stream() -> Tensor:
        with recorded(model, [place.stream]) as found:
            run()
        return place.stream.tokens(found).double()

    before = stream()
    if before.shape[1] != place.channels:
        return False
    change = torch.randn(
        place.columns,
        place.channels,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0)).to(before.device)
    change /= 10 * place.channels**0.5
    with place.put_back():
        place.add(change)
        after = stream()
    wanted = before + before @ change[:place.channels]
    if place.has_bias:
        wanted += change[-1]
    dtype = place.parts[0][0].dtype
    tolerance = max(TOLERANCE, HALF_STEPS * torch.finfo(dtype).eps)
    gap = (after - wanted).abs().max()
    return bool(gap <= tolerance * before.abs().max().clamp(min=1e-3))
