"""LoRAViT: names of mmaction2, LoRA that acts, blocks that are absent."""
from mmblockdrop.backbones.vit import LoRAViT
from mmblockdrop.compression import add_lora, has_lora, merge_lora

import pytest
import torch
from mmaction.models.backbones.vit_mae import VisionTransformer
from mmengine.runner import save_checkpoint

SIZES = dict(
    img_size=16,
    patch_size=8,
    embed_dims=16,
    depth=3,
    num_heads=2,
    num_frames=4)


def clips(size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, size, size, generator=generator)


def fill_lora(module: torch.nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if 'lora_' in name:
            torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize('options', [
    dict(), dict(use_mean_pooling=False), dict(qkv_bias=False),
    dict(init_values=0.1), dict(use_learnable_pos_emb=True)
])
@pytest.mark.parametrize('size', [16, 24])
def test_equals_mmaction(options, size):
    theirs = VisionTransformer(return_feat_map=True, **SIZES, **options)
    theirs.init_weights()
    ours = LoRAViT(**SIZES, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.eval(), ours.eval()
    torch.testing.assert_close(
        ours(clips(size)), theirs(clips(size)), atol=1e-5, rtol=1e-5)


def test_qk_scale_is_used():
    plain, scaled = LoRAViT(**SIZES), LoRAViT(qk_scale=2., **SIZES)
    plain.init_weights()
    for p in plain.blocks.parameters():
        torch.nn.init.normal_(p, std=0.5)
    scaled.load_state_dict(plain.state_dict())
    assert (plain.eval()(clips()) - scaled.eval()(clips())).abs().max() > 1e-3


@pytest.mark.parametrize('target', ['qkv', 'proj'])
def test_lora_on_one_target_changes_output_and_merges_away(target):
    vit = LoRAViT(**SIZES, lora=dict(rank=2, alpha=6, targets=[target]))
    vit.init_weights()
    plain = LoRAViT(**SIZES)
    fresh = {k.replace('.base_layer', ''): v
             for k, v in vit.state_dict().items() if 'lora_' not in k}
    plain.load_state_dict(fresh, strict=True)
    vit.eval(), plain.eval()
    torch.testing.assert_close(vit(clips()), plain(clips()))
    fill_lora(vit)
    adapted = vit(clips())
    assert (adapted - plain(clips())).abs().max() > 1e-3
    assert merge_lora(vit) == SIZES['depth']
    assert not has_lora(vit)
    assert list(vit.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(vit(clips()), adapted, atol=1e-5, rtol=1e-5)


def test_init_weights_keeps_fresh_lora_the_identity():
    vit = LoRAViT(**SIZES, lora=dict(rank=2))
    fill_lora(vit)
    vit.init_weights()
    b = [p for n, p in vit.named_parameters() if 'lora_B' in n]
    a = [p for n, p in vit.named_parameters() if 'lora_A' in n]
    assert all(p.abs().max() == 0 for p in b)
    assert all(p.abs().max() > 0 for p in a)


def test_pretrained_that_is_not_there(tmp_path):
    (tmp_path / 'vit-small.pth').touch()
    vit = LoRAViT(pretrained=str(tmp_path / 'vit-smal.pth'), **SIZES)
    with pytest.raises(
            FileNotFoundError,
            match='backbone.pretrained=.*did you mean .*vit-small.pth'):
        vit.init_weights()
    vit.pretrained = str(tmp_path / 'absent' / 'a.pth')
    with pytest.raises(FileNotFoundError, match='videomae_to_mmblockdrop.py'):
        vit.init_weights()


def test_pretrained_is_loaded(tmp_path):
    source = LoRAViT(**SIZES)
    path = str(tmp_path / 'vit.pth')
    save_checkpoint(dict(state_dict=source.state_dict()), path)
    vit = LoRAViT(pretrained=path, **SIZES)
    vit.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(vit.state_dict()[name], value), name


def test_plain_checkpoint_loads_strictly_into_lora_model():
    plain = LoRAViT(**SIZES)
    vit = LoRAViT(**SIZES, lora=dict(rank=2))
    vit.load_state_dict(plain.state_dict(), strict=True)
    torch.testing.assert_close(vit.eval()(clips()), plain.eval()(clips()))


def test_dropped_blocks_own_no_keys_and_the_others_keep_theirs():
    full, short = LoRAViT(**SIZES), LoRAViT(drop_blocks=[1], **SIZES)
    gone = set(full.state_dict()) - set(short.state_dict())
    assert gone and all(k.startswith('blocks.1.') for k in gone)
    assert set(short.state_dict()) < set(full.state_dict())


@pytest.mark.parametrize('drop,word', [([3], 'does not exist'),
                                       ([1, 1], 'removed already'),
                                       ([0, 1, 2], 'last one')])
def test_bad_drop_blocks(drop, word):
    with pytest.raises(ValueError, match=word):
        LoRAViT(drop_blocks=drop, **SIZES)


def test_activation_checkpointing_changes_no_gradient():
    plain = LoRAViT(**SIZES)
    plain.init_weights()
    recomputed = LoRAViT(with_cp=True, **SIZES)
    recomputed.load_state_dict(plain.state_dict())
    for vit in (plain, recomputed):
        vit.train()
        vit(clips()).square().mean().backward()
    for (name, p), q in zip(plain.named_parameters(),
                            recomputed.parameters()):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_lora_errors():
    vit = LoRAViT(**SIZES)
    with pytest.raises(ValueError, match='lora.targets.*qvk.*qkv'):
        add_lora(vit, rank=2, targets=['qvk'])
    with pytest.raises(ValueError, match='lora.rank'):
        add_lora(vit, rank=0)
    add_lora(vit, rank=2)
    with pytest.raises(ValueError, match='already'):
        add_lora(vit, rank=2)
    for name, p in vit.named_parameters():
        if 'blocks.2.attn.proj.lora_B' in name:
            p.data.fill_(float('nan'))
    before = {k: v.clone() for k, v in vit.state_dict().items()}
    with pytest.raises(ValueError, match='NaN'):
        merge_lora(vit)
    for name, value in vit.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())


def test_lora_freezes_the_wrapped_weights_only():
    vit = LoRAViT(**SIZES)
    vit.patch_embed.projection.bias.requires_grad = False
    assert add_lora(vit, rank=2) == 2 * SIZES['depth']
    frozen = {n for n, p in vit.named_parameters() if not p.requires_grad}
    assert 'patch_embed.projection.bias' in frozen
    assert 'blocks.0.attn.qkv.base_layer.weight' in frozen
    assert 'blocks.0.mlp.layers.1.weight' not in frozen
    assert not any('lora_' in n or '.norm' in n for n in frozen)
