"""LoRA on the linear layers of other people's backbones."""
from mmblockdrop.compression import (BlockStack, DroppedBlock, add_lora,
                                     check_lora, has_lora, merge_lora)
from mmblockdrop.compression.lora import check_called

import pytest
import torch
from torch import nn
from zoo import ZOO, build


def blocks_of(name):
    model, clips = build(name)
    stack = BlockStack(model, ZOO[name].stack)
    return model, clips, stack, [stack[i] for i in range(len(stack))]


@pytest.mark.parametrize('name,names,near', [
    ('mmaction.SwinTransformer3D', "'fc1', 'fc2', 'proj', 'qkv'", 'qkv'),
    ('mmaction.MViT', "'fc1', 'fc2', 'proj', 'qkv'", 'qkv'),
    ('mmaction.TimeSformer', "'0', '1', 'temporal_fc'", None),
])
def test_error_lists_the_linear_layers(name, names, near):
    _, _, _, blocks = blocks_of(name)
    with pytest.raises(ValueError) as error:
        check_lora(blocks, 2, ['qvk'])
    assert names in str(error.value)
    assert ('did you mean' in str(error.value)) == (near is not None)


def test_convnets_have_no_target():
    _, _, _, blocks = blocks_of('mmaction.ResNet3d')
    with pytest.raises(ValueError, match='BasicBlock3d has no linear layer'):
        check_lora(blocks, 2)


def test_weights_that_are_read_are_no_targets():
    model, clips, stack, blocks = blocks_of('mmaction.TimeSformer')
    with pytest.raises(ValueError, match=r"\['out_proj'\], whose weight"):
        check_lora(blocks, 2, ['out_proj', 'temporal_fc'])
    model, clips, stack, blocks = blocks_of('mmaction.VisionTransformer')
    check_lora(blocks, 2, ['qkv', 'proj'])
    stack.probe(lambda: model(clips))
    with pytest.raises(ValueError, match=r'blocks\.0\.attn\.qkv.*LoRAViT'):
        check_called(stack.idle, rank=2, targets=['qkv', 'proj'])
    check_called(stack.idle, rank=2, targets=['proj'])


@torch.no_grad()
def test_blocks_without_targets_stay_as_they_are():
    model, clips, stack, blocks = blocks_of('mmaction.UniFormer')
    before = model(clips)
    stack.remove(3)
    dropped = model(clips)
    blocks = [stack[i] for i in range(len(stack))]
    assert isinstance(blocks[3], DroppedBlock)
    assert add_lora(blocks, rank=2) == 2 * 2
    assert [has_lora(b) for b in blocks] == 3 * [False] + [False] + [True] * 2
    assert torch.equal(model(clips), dropped)
    for name, value in model.named_parameters():
        if 'lora_B' in name:
            nn.init.constant_(value, 0.1)
    adapted = model(clips)
    assert not torch.equal(adapted, dropped)
    assert not torch.equal(before, dropped)
    with pytest.raises(ValueError, match='carries LoRA already'):
        add_lora(blocks, rank=2)
    assert merge_lora(model) == 4
    torch.testing.assert_close(model(clips), adapted)
