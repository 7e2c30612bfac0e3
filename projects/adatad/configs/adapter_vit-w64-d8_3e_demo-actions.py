# The trunk is frozen; adapters of a quarter of the width reach beyond the four
# steps that a block sees.
_base_ = './full_vit-w64-d8_3e_demo-actions.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmblockdrop.AdaptedEncoder',
        encoder=dict(
            type='mmblockdrop.SmallViT',
            img_size=48,
            patch_size=16,
            in_channels=1,
            embed_dims=64,
            depth=8,
            num_heads=2,
            mlp_ratio=4,
            num_frames=8,
            shifted_windows=True,
            use_learnable_pos_emb=True,
            init_values=0.1,
            stem=dict(channels=[8, 16, 32]),
            pretrained=_base_.trunk),
        stack='blocks',
        # The window of 256 frames is one clip of 128 tubelets.
        steps=128,
        adapters=dict(ratio=0.25)))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.))))
