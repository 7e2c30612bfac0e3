"""Adapters of AdaTAD (Liu et al., CVPR 2024, arXiv 2311.17241).

An adapter stands behind a block of a frozen encoder. Tokens x of width C are
projected down to d channels, mixed along the time of the whole window, and
projected up again,

    z = GELU(x W_down),  x + gamma (z + conv(z)) W_up,

with ``conv`` a depthwise and a pointwise convolution in time for every place
of the frame. So what one clip sees reaches the next. A fresh adapter is the
identity, since ``W_up`` is zero.
"""
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from mmblockdrop.compression import BlockStack
from mmblockdrop.compression.spec import find_writers
from mmblockdrop.utils.messages import require_choice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: How the features between blocks are laid out.
LAYOUTS = ('tokens', 'channels_first', 'channels_last')
#: Modules that leave out residual branches at random.
DROP_PATHS = ('DropPath', 'StochasticDepth')
Clips = Union[int, Sequence[int]]


class Windows:
    """Which clips of a batch belong to one window; adapters share it.

    Args:
        layout: 'tokens' [N, S + t * p, C], 'channels_first' [N, C, t, h, w]
            or [N, C, h, w], or 'channels_last' [N, t, h, w, C] or
            [N, h, w, C]. N is the number of clips or a multiple of it, such
            as that of their frames.
        special_tokens: S, tokens in front such as a class token; adapters
            leave them as they are.
        steps: t of 'tokens', steps of time in a clip.

    Attributes:
        lengths: Clips of every window.

    Raises:
        ValueError: ``layout`` is unknown.
    """

    def __init__(self,
                 layout: str = 'tokens',
                 special_tokens: int = 0,
                 steps: int = 1) -> None:
        require_choice('backbone.layout', layout, LAYOUTS)
        self.layout = layout
        self.special_tokens = special_tokens
        self.steps = steps
        self.lengths: Tuple[int, ...] = (1, )

    def set(self, clips: int, clips_per_window: Clips) -> None:
        """Take notice of a batch.

        Args:
            clips: Clips of the batch.
            clips_per_window: Of each window, or of all alike.

        Raises:
            ValueError: That many clips cannot be divided so.
        """
        if isinstance(clips_per_window, int):
            if clips_per_window < 1 or clips % clips_per_window:
                raise ValueError(
                    f'the backbone is given {clips} clips, expected a '
                    f'multiple of clips_per_window={clips_per_window}')
            lengths = [clips_per_window] * (clips // clips_per_window)
        else:
            lengths = list(clips_per_window)
            if sum(lengths) != clips or min(lengths) < 1:
                raise ValueError(
                    f'the backbone is given {clips} clips, but '
                    f'clips_per_window={lengths} sums up to {sum(lengths)}')
        self.lengths = tuple(lengths)

    def fold(self, x: Tensor) -> Tuple[Tensor, List[int]]:
        """Put the clips of all windows one after another in time.

        Args:
            x: Features in ``layout``.

        Returns:
            Features [steps of all windows, places, C], and the number of
            steps of each window.

        Raises:
            ValueError: Rows or tokens cannot be divided by clips or steps.
        """
        clips = sum(self.lengths)
        if x.size(0) % clips:
            raise ValueError(
                f'a block returns {tuple(x.shape)}: {x.size(0)} rows for '
                f'{clips} clips, expected a multiple')
        if self.layout == 'tokens':
            x = x[:, self.special_tokens:]
            if x.size(1) % self.steps:
                raise ValueError(
                    f'a block returns {x.size(1)} tokens of a clip, expected '
                    f'a multiple of backbone.steps={self.steps}')
            x = x.reshape(x.size(0) * self.steps, -1, x.size(-1))
        else:
            if self.layout == 'channels_first':
                x = x.movedim(1, -1)
            x = x.flatten(0, 1) if x.dim() == 5 else x
            x = x.flatten(1, 2)
        steps = x.size(0) // clips
        return x, [steps * count for count in self.lengths]

    def unfold(self, folded: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`fold`.

        Args:
            folded: Features [steps of all windows, places, C].
            like: What was folded; gives shape and special tokens.

        Returns:
            Features in ``layout``, those of special tokens zero.
        """
        if self.layout == 'tokens':
            x = folded.reshape(like.size(0), -1, like.size(-1))
            if self.special_tokens:
                x = F.pad(x, (0, 0, self.special_tokens, 0))
            return x
        if self.layout == 'channels_last':
            return folded.reshape(like.shape)
        return folded.reshape(like.movedim(1, -1).shape).movedim(-1, 1)


class TemporalAdapter(nn.Module):
    """The temporal-informative adapter of AdaTAD, or its plain form.

    Args:
        embed_dims: C, width of the features.
        ratio: d / C.
        temporal: Mix along time. Without, every token is adapted by itself.
        kernel_size: Steps that the depthwise convolution sees; odd.
        dilation: Distance of these steps.
        windows: Which clips belong together. Defaults to None, each clip is
            a window of ``Windows()``.

    Raises:
        ValueError: The ratio leaves no channel, or the kernel is even.
    """

    def __init__(self,
                 embed_dims: int,
                 ratio: float = 0.25,
                 temporal: bool = True,
                 kernel_size: int = 3,
                 dilation: int = 1,
                 windows: Optional[Windows] = None) -> None:
        super().__init__()
        hidden = int(embed_dims * ratio)
        if hidden < 1:
            raise ValueError(f'adapters.ratio={ratio} of {embed_dims} channels'
                             ' leaves none, expected at least '
                             f'{1 / embed_dims:g}')
        if temporal and kernel_size % 2 == 0:
            raise ValueError(f'adapters.kernel_size={kernel_size}: expected '
                             f'an odd number such as {kernel_size + 1}')
        self.windows = windows or Windows()
        self.temporal = temporal
        self.gamma = nn.Parameter(torch.ones(1))
        if temporal:
            self.dwconv = nn.Conv1d(
                hidden,
                hidden,
                kernel_size,
                padding=kernel_size // 2 * dilation,
                dilation=dilation,
                groups=hidden)
            self.conv = nn.Conv1d(hidden, hidden, 1)
        self.down_proj = nn.Linear(embed_dims, hidden)
        self.up_proj = nn.Linear(hidden, embed_dims)
        #: Whether nothing has been loaded since it was created.
        self.fresh = True
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start as the identity."""
        nn.init.ones_(self.gamma)
        nn.init.trunc_normal_(self.down_proj.weight, std=0.02)
        nn.init.zeros_(self.up_proj.weight)
        layers: List[Any] = [self.down_proj, self.up_proj]
        if self.temporal:
            for conv in (self.dwconv, self.conv):
                fan_in = conv.weight[0].numel()
                nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_in))
            layers += [self.dwconv, self.conv]
        for layer in layers:
            nn.init.zeros_(layer.bias)

    @property
    def reach(self) -> int:
        """Steps of time to each side from which a token learns."""
        if not self.temporal:
            return 0
        return self.dwconv.kernel_size[0] // 2 * self.dwconv.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        """Adapt the output of a block.

        Args:
            x: Features in the layout of ``windows``.

        Returns:
            Features of the same shape.
        """
        return x + self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        """What the adapter adds.

        Args:
            x: Features in the layout of ``windows``.

        Returns:
            Features of the same shape.
        """
        folded, lengths = self.windows.fold(x)
        hidden = F.gelu(self.down_proj(folded))
        if self.temporal:
            hidden = hidden + self._along_time(hidden, lengths)
        return self.windows.unfold(self.gamma * self.up_proj(hidden), x)

    def _along_time(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Convolve [steps of all windows, places, d], no window with others'.
        """
        if len(set(lengths)) > 1:
            return torch.cat([
                self._along_time(part, [len(part)])
                for part in x.split(list(lengths))
            ])
        x = x.unflatten(0, (len(lengths), -1))  # [windows, steps, places, d]
        windows, steps, places, width = x.shape
        x = x.permute(0, 2, 3, 1).reshape(windows * places, width, steps)
        x = self.conv(self.dwconv(x))
        x = x.reshape(windows, places, width, steps)
        return x.permute(0, 3, 1, 2).flatten(0, 1)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str,
                              *args: Any) -> None:
        """As any module; what was loaded is not reset later."""
        if f'{prefix}up_proj.weight' in state_dict:
            self.fresh = False
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """What the layers inside do not show."""
        return '' if self.temporal else 'temporal=False'


def add_adapters(model: nn.Module,
                 stack: str,
                 windows: Windows,
                 blocks: Optional[Sequence[int]] = None,
                 embed_dims: Optional[int] = None,
                 side: bool = False,
                 **settings: Any) -> None:
    """Put adapters behind the blocks of a stack, in place.

    The adapter of a block is its child ``adapter``, so it leaves with it, and
    no other parameter changes its name.

    Args:
        model: An encoder.
        stack: Dotted path of the blocks.
        windows: Set by the encoder in each forward pass.
        blocks: Numbers of the blocks. Defaults to None, all.
        embed_dims: Width of the features. Defaults to None, that of the layer
            of the block that writes last, as its class declares it.
        side: Leave the output of the blocks as it is; the encoder asks for
            :meth:`TemporalAdapter.branch` itself.
        **settings: Other arguments of :class:`TemporalAdapter`.

    Raises:
        ValueError: A block or the stack does not exist, or its width is not
            known.
    """
    structure = BlockStack(model, stack)
    chosen = structure.ids if blocks is None else list(blocks)
    structure.check_known(chosen, 'adapters.blocks')
    for number in chosen:
        width = embed_dims or _width(model, structure.names[number])
        block = structure[number]
        block.adapter = TemporalAdapter(width, windows=windows, **settings)
        if not side:
            block.register_forward_hook(_adapt)


def _adapt(block: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook: what a block with an adapter returns."""
    if isinstance(output, tuple):
        return (block.adapter(output[0]), *output[1:])
    return block.adapter(output)


def _width(model: nn.Module, block: str) -> int:
    """Width of a block's output by its declared layers."""
    writers = list(find_writers(model, block))
    if not writers:
        kind = type(model.get_submodule(block)).__name__
        raise ValueError(f'adapters.embed_dims is missing: {block} ({kind}) '
                         'declares no layer that tells its width')
    return model.get_submodule(writers[-1]).weight.shape[0]


def adapters_of(model: nn.Module) -> Dict[str, TemporalAdapter]:
    """List the adapters of a model.

    Args:
        model: Any model.

    Returns:
        Dotted path to adapter, in the order of the modules.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, TemporalAdapter)
    }


def temporal_reach(model: nn.Module) -> Dict[str, int]:
    """Say how far the adapters of a model carry information in time.

    Args:
        model: Any model.

    Returns:
        ``temporal_reach``: steps of time, such as tubelets, to each side;
        each temporal adapter adds its own. Empty for a model without any
        adapters in its class.
    """
    return dict(
        temporal_reach=sum(a.reach for a in adapters_of(model).values()))


@torch.no_grad()
def fold_adapters(model: nn.Module) -> Dict[str, str]:
    """Remove what is superfluous in the adapters of a model, in place.

    ``gamma`` is multiplied into the up projection. An adapter that adds
    nothing is removed. All others have to stay: a GELU stands between their
    two projections, so no layer of the frozen encoder can compute them.

    Args:
        model: A trained model.

    Returns:
        Dotted path of each adapter to what was done.
    """
    done = {}
    for name, adapter in adapters_of(model).items():
        for parameter in (adapter.up_proj.weight, adapter.up_proj.bias):
            parameter.mul_(adapter.gamma)
        adapter.gamma.fill_(1.)
        if any(p.any() for p in adapter.up_proj.parameters()):
            done[name] = 'gamma folded into up_proj'
        else:
            _remove(model.get_submodule(name.rpartition('.')[0]))
            done[name] = 'removed: it adds nothing'
    return done


def _remove(block: nn.Module) -> None:
    """Take the adapter off a block."""
    del block.adapter
    for key, hook in list(block._forward_hooks.items()):
        if hook is _adapt:
            del block._forward_hooks[key]


# ------------------------------------------------------------ frozen encoder
def set_modes(model: nn.Module, trained: Sequence[str],
              stochastic_depth: bool, mode: bool) -> None:
    """Freeze an encoder and keep what is frozen in evaluation mode.

    Args:
        model: The encoder.
        trained: Parts of the names of the parameters that are trained.
        stochastic_depth: Whether residual branches are left out at random in
            training although they are frozen.
        mode: Whether the model is trained.
    """
    for name, parameter in model.named_parameters():
        if not any(part in name for part in trained):
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        trains = any(part in f'{name}.' for part in trained) or (
            stochastic_depth and type(module).__name__ in DROP_PATHS)
        module.training = mode and (trains or not name)


def reset_adapters(model: nn.Module) -> None:
    """Give a fresh start to adapters that have not been loaded."""
    for adapter in adapters_of(model).values():
        if adapter.fresh:
            adapter.reset()
