"""What a class says about its blocks, and where that is looked up.

A backbone or localizer declares ``block_spec = BlockSpec(...)``. Classes of
mmaction2 and mmpretrain have theirs in a table here, by name, so that neither
has to be imported. A class without one works all the same: a forward pass
finds the blocks that may go (:meth:`~.structure.Structure.probe`).
"""
import re
from dataclasses import dataclass, field, replace
from typing import (Any, Callable, Dict, List, Mapping, NamedTuple, Optional,
                    Tuple)

from torch import nn

from .bypass import Bypass


@dataclass(frozen=True)
class Stack:
    """A stack of blocks inside a class, and the arguments that describe it.

    Places in arguments are dotted, with numbers for entries of lists
    (``arch.depths.0``). ``{}`` in the path stands for a number, and in a
    place for the same number.

    Args:
        path: Dotted path of the container, or of a single block.
        depth: Place of the number of blocks; None if no argument gives it.
        per_block: Places of lists with one entry per block.
        numbers: Places of lists of block numbers, which must remain.
        subsets: Places of lists of block numbers from which those of removed
            blocks are left out.
        entry: What the stream in front of the first block is the sum of, as
            paths inside the class: linear layers, convolutions, and tables
            [.., C]. What a model does not have is passed over.
        shortened: Whether a compression shortens it unless told otherwise.
    """
    path: str
    depth: Optional[str] = None
    per_block: Tuple[str, ...] = ()
    numbers: Tuple[str, ...] = ()
    subsets: Tuple[str, ...] = ()
    entry: Tuple[str, ...] = ()
    shortened: bool = True

    def at(self, path: str) -> Optional['Stack']:
        """Fill in the number of a path.

        Args:
            path: Dotted path inside the class.

        Returns:
            The stack at that path; None if it is another path.
        """
        pattern = re.escape(self.path).replace(r'\{\}', r'(\d+)')
        found = re.fullmatch(pattern, path)
        if found is None:
            return None

        def fill(place: str) -> str:
            return place.format(*found.groups())

        return replace(
            self,
            path=path,
            depth=None if self.depth is None else fill(self.depth),
            per_block=tuple(map(fill, self.per_block)),
            numbers=tuple(map(fill, self.numbers)),
            subsets=tuple(map(fill, self.subsets)),
            entry=tuple(map(fill, self.entry)))


@dataclass(frozen=True)
class Half:
    """A residual branch of a block that can be removed alone.

    Args:
        branch: Dotted path of the branch inside the block.
        leaves: Modules and parameters of the block that serve this branch
            alone, such as its norm and its LayerScale. They leave with it;
            what a block does not have is passed over.
        identity: Argument that the branch itself adds to its output, a
            position or a name. None if the block does the adding.
    """
    branch: str
    leaves: Tuple[str, ...] = ()
    identity: Optional[Bypass] = None


@dataclass(frozen=True)
class BlockSpec:
    """What a class says about its blocks. All of it may be left out.

    Paths are dotted, inside the class; those of ``halves`` and ``writes`` are
    inside a block.

    Args:
        stacks: Where the blocks are.
        why_fixed: Given a block, says in a few words why it must stay, or
            returns None.
        halves: Branches of a block, in the order in which they run.
        leaves: Modules outside the block that leave with it, such as adapters:
            path, with ``{}`` for the number of the block in its stack, to the
            argument that stands for the output.
        changed: Called with the module after blocks were removed or put back,
            for what depends on which remain, such as a schedule of token
            dropout or the taps of a pyramid.
        writes: Linear layers, or 1x1 convolutions, whose output is added to
            the residual stream: path to the parameter that scales the output,
            or None. What a block does not have is passed over.
        absent: Argument that lists the parts that are absent, if there is one.
        alignments: What a compression should align, apart from the outputs of
            blocks: name to config of an alignment.
        teacher_mode: ``teacher_mode`` of the ``TeacherStudentWrapper``.
        facts: Called with the module for what the record should say about it
            after each round: name to a number or text.
        fold: Called with the module of a model that is exported, to fold
            layers into others where its function stays the same; returns the
            arguments of its config that have changed, None for those to leave
            out.
    """
    stacks: Tuple[Stack, ...] = ()
    why_fixed: Optional[Callable[[nn.Module], Optional[str]]] = None
    halves: Tuple[Half, ...] = ()
    leaves: Mapping[str, Bypass] = field(default_factory=dict)
    changed: Optional[Callable[[nn.Module], Any]] = None
    writes: Mapping[str, Optional[str]] = field(default_factory=dict)
    absent: Optional[str] = None
    alignments: Mapping[str, dict] = field(default_factory=dict)
    teacher_mode: Optional[str] = None
    facts: Optional[Callable[[nn.Module], Mapping[str, Any]]] = None
    fold: Optional[Callable[[nn.Module], Mapping[str, Any]]] = None


class Place(NamedTuple):
    """Where a block or a stack is declared.

    Attributes:
        prefix: Dotted path of the module that declares it.
        owner: That module.
        spec: Its spec.
        stack: Its entry for the stack.
    """
    prefix: str
    owner: nn.Module
    spec: BlockSpec
    stack: Stack


def register_spec(name: str, spec: BlockSpec) -> None:
    """Declare the blocks of a class of another package.

    Args:
        name: Package and class, ``mmaction.MViT``. It holds for subclasses.
        spec: What to know about it.
    """
    _SPECS[name] = spec


def spec_of(module: nn.Module) -> Optional[BlockSpec]:
    """Look up what the class of a module declares.

    Args:
        module: Any module.

    Returns:
        The spec of the nearest class that has one; None without any.
    """
    for kind in type(module).__mro__:
        name = f'{kind.__module__.split(".")[0]}.{kind.__name__}'
        spec = vars(kind).get('block_spec', _SPECS.get(name))
        if spec is not None:
            return spec
    return None


def facts_of(model: nn.Module) -> Dict[str, Any]:
    """Collect what the classes of a model want recorded about it.

    Args:
        model: Any model.

    Returns:
        Name to a number or text.
    """
    facts: Dict[str, Any] = {}
    for module in model.modules():
        spec = spec_of(module)
        if spec is not None and spec.facts is not None:
            facts.update(spec.facts(module))
    return facts


def find_place(model: nn.Module, path: str) -> Optional[Place]:
    """Find who declares a stack or a block.

    Args:
        model: Any model.
        path: Dotted path of the container or of the block.

    Returns:
        The declaration by the innermost module; None without any.
    """
    parts = path.split('.')
    for count in reversed(range(len(parts))):
        prefix, inside = '.'.join(parts[:count]), '.'.join(parts[count:])
        owner = model.get_submodule(prefix)
        spec = spec_of(owner)
        for stack in spec.stacks if spec else ():
            found = stack.at(inside) or stack.at(inside.rpartition('.')[0])
            if spec and found:
                return Place(prefix, owner, spec, found)
    return None


def find_writers(model: nn.Module,
                 block: str) -> Dict[str, Optional[str]]:
    """Find the layers of a block that write into the residual stream.

    Args:
        model: Any model.
        block: Dotted path of the block.

    Returns:
        Dotted path of each layer, in the order in which they run, to that of
        the parameter that scales its output, if it has one. Empty if nobody
        declares them.
    """
    place = find_place(model, block)
    if place is None:
        return {}
    inside = model.get_submodule(block)
    there = {n for n, _ in inside.named_modules()}
    scales = {n for n, _ in inside.named_parameters()}
    return {
        f'{block}.{layer}': f'{block}.{scale}' if scale in scales else None
        for layer, scale in place.spec.writes.items() if layer in there
    }


def declared_stacks(model: nn.Module) -> List[str]:
    """List the stacks of a model that its classes declare.

    Args:
        model: Any model.

    Returns:
        Dotted paths of those that exist and are shortened by default, the
        outermost declaration first.
    """
    found: List[str] = []
    names = [name for name, _ in model.named_modules()]
    for prefix, module in model.named_modules():
        spec = spec_of(module)
        start = f'{prefix}.' if prefix else ''
        inside = [n[len(start):] for n in names if n.startswith(start)]
        for stack in spec.stacks if spec else ():
            found += [
                start + path for path in inside
                if stack.shortened and stack.at(path)
            ]
    return list(dict.fromkeys(found))


# ------------------------------------------------ mmaction2 and mmpretrain
def _changes_shape(block: nn.Module) -> Optional[str]:
    """Residual blocks of ConvNets with a projection on the shortcut."""
    if getattr(block, 'downsample', None) is not None:
        return 'changes the shape on its shortcut'
    return None


def _module(path: str, loss: dict, **options: Any) -> dict:
    """Config that aligns the output of a module."""
    return dict(
        type='mmblockdrop.ModuleAlignment', module=path, **options, loss=loss)


def _layers(*names: str) -> Tuple[Stack, ...]:
    """Single layers, which no argument counts."""
    return tuple(map(Stack, names))


AGREE = dict(type='mmblockdrop.BinaryKLLoss')
VIT = BlockSpec(
    stacks=(Stack('blocks', 'depth',
                  entry=('patch_embed.projection', 'pos_embed')), ),
    halves=(Half('attn', ('norm1', 'gamma_1')),
            Half('mlp', ('norm2', 'gamma_2'))),
    writes={'attn.proj': 'gamma_1', 'mlp.layers.1': 'gamma_2'})
RESNET = BlockSpec(
    stacks=_layers('layer{}'),
    why_fixed=_changes_shape,
    writes={'conv3': 'bn3.weight', 'conv3.conv': 'conv3.bn.weight'})
_SPECS: Dict[str, BlockSpec] = {
    'mmaction.VisionTransformer': VIT,
    'mmaction.TimeSformer': BlockSpec(
        stacks=(Stack('transformer_layers.layers',
                      'num_transformer_layers',
                      entry=('patch_embed.projection', 'cls_token',
                             'time_embed', 'pos_embed')), ),
        halves=tuple(Half(branch, identity=0) for branch in
                     ('attentions.0', 'attentions.1', 'ffns.0')),
        writes={'attentions.0.temporal_fc': None,
                'attentions.1.attn.out_proj': None, 'ffns.0.layers.1': None}),
    'mmaction.MViT': BlockSpec(
        stacks=(Stack('blocks', 'arch.num_layers',
                      numbers=('arch.downscale_indices', )), ),
        writes={'attn.proj': None, 'mlp.fc2': None}),
    'mmaction.SwinTransformer3D': BlockSpec(
        stacks=(Stack('layers.{}.blocks', 'arch.depths.{}'), ),
        halves=(Half('attn', ('norm1', )), Half('mlp', ('norm2', ))),
        writes={'attn.proj': None, 'mlp.fc2': None}),
    'mmaction.UniFormer': BlockSpec(
        stacks=tuple(Stack(f'blocks{i + 1}', f'depth.{i}') for i in range(4)),
        writes={'conv2': None, 'attn.proj': 'gamma_1', 'mlp.fc2': 'gamma_2'}),
    'mmaction.UniFormerV2': BlockSpec(
        stacks=(Stack('transformer.resblocks', 'layers',
                      numbers=('return_list', )),
                Stack('transformer.dec', 'n_layers',
                      per_block=('return_list', 'mlp_dropout'),
                      shortened=False)),
        writes={'attn.out_proj': None, 'mlp.c_proj': None}),
    'mmaction.ResNet3d': replace(RESNET, stacks=tuple(
        Stack(f'layer{i + 1}', f'stage_blocks.{i}', (f'inflate.{i}', ))
        for i in range(4))),
    'mmaction.ResNet3dSlowFast': replace(
        RESNET, stacks=_layers('slow_path.layer{}', 'fast_path.layer{}')),
    'mmaction.X3D': RESNET,
    'mmpretrain.VisionTransformer': BlockSpec(
        stacks=(Stack('layers', 'arch.num_layers', ('layer_cfgs', ),
                      ('out_indices', ),
                      entry=('patch_embed.projection', 'cls_token',
                             'pos_embed')), ),
        halves=(Half('attn', ('ln1', )),
                Half('ffn', ('ln2', ), identity='identity')),
        writes={'attn.proj': 'attn.gamma1.weight',
                'ffn.layers.1': 'ffn.gamma2.weight',
                'ffn.w3': 'ffn.gamma2.weight'}),
    'mmpretrain.SwinTransformer': BlockSpec(
        stacks=(Stack('stages.{}.blocks', 'arch.depths.{}'), ),
        halves=(Half('attn', ('norm1', )),
                Half('ffn', ('norm2', ), identity='identity')),
        writes={'attn.w_msa.proj': None, 'ffn.layers.1': None}),
    'mmpretrain.ConvNeXt': BlockSpec(
        stacks=(Stack('stages.{}', 'arch.depths.{}',
                      entry=('downsample_layers.{}.1', )), ),
        writes={'pointwise_conv2': 'gamma'}),
    'mmpretrain.ResNet': RESNET,
    # Localizers have single layers that may go, and known predictions.
    'mmaction.BMN': BlockSpec(
        stacks=_layers('x_1d_b.2', 'x_1d_s.0', 'x_1d_e.0', 'x_1d_p.0',
                       'x_2d_p.2', 'x_2d_p.4'),
        alignments=dict(
            confidence=_module('x_2d_p', AGREE, mask='bm_mask'),
            start=_module('x_1d_s', AGREE),
            end=_module('x_1d_e', AGREE))),
    'mmaction.TEM': BlockSpec(
        stacks=_layers('conv1', 'conv2'),
        alignments=dict(
            curves=_module('conv3', dict(AGREE, logits=True, scale=0.01)))),
    'mmaction.TCANet': BlockSpec(
        stacks=_layers('x_1d_b_f.2', 'lgtes'),
        alignments=dict(
            iou=_module('tbr1', AGREE, index=0),
            segments=_module('tbr1', dict(type='mmblockdrop.GIoULoss'),
                             index=1)),
        teacher_mode='loss'),
    'mmaction.BaseRecognizer': BlockSpec(
        alignments=dict(
            cls=_module('cls_head', dict(type='mmblockdrop.ClassKLLoss'))),
        teacher_mode='loss'),
}
