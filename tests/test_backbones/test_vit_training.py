"""What of the encoder is trained, and what acts in training alone."""
from mmblockdrop.backbones.vit import LoRAViT

import pytest
import torch

SIZES = dict(
    img_size=32,
    patch_size=16,
    embed_dims=16,
    depth=2,
    num_heads=2,
    mlp_ratio=2,
    num_frames=4)


def test_only_what_is_named_is_trained():
    vit = LoRAViT(
        **SIZES,
        qkv_bias=True,
        lora=dict(rank=2),
        trainable=['lora_', 'norm', 'patch_embed'])
    trained = {n for n, p in vit.named_parameters() if p.requires_grad}
    for name in ('patch_embed.projection.weight', 'blocks.0.norm1.bias',
                 'blocks.1.attn.qkv.lora_A.default.weight'):
        assert name in trained
    for part in ('mlp', 'q_bias', 'base_layer', 'fc_norm'):
        assert not any(part in name for name in trained)


def test_names_of_nothing_are_rejected():
    with pytest.raises(ValueError, match=r"trainable=\['lorra_'\].*'qkv'"):
        LoRAViT(**SIZES, trainable=['lorra_'])


def test_attention_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    vit = LoRAViT(**SIZES, attn_drop_rate=0.5)
    clips = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        vit.train()
        assert not torch.equal(vit(clips), vit(clips))
        vit.eval()
        assert torch.equal(vit(clips), vit(clips))
