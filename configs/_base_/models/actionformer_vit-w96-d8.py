# Small localizer trained from raw pixels: eight blocks of width 96 on
# windows of 304 frames (19 clips of 16), feature grid of 152 steps.
model = dict(
    type='mmblockdrop.ActionFormer',
    data_preprocessor=dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW'),
    backbone=dict(
        type='mmblockdrop.LoRAViT',
        img_size=64,
        patch_size=16,
        embed_dims=96,
        depth=8,
        num_heads=4,
        mlp_ratio=4,
        qkv_bias=True,
        num_frames=16,
        norm_cfg=dict(type='LN', eps=1e-6),
        # With 0.02, as VideoMAE has it for width 768, a block of width 96
        # adds next to nothing and learns late.
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.06, bias=0.),
            dict(type='Constant', layer='LayerNorm', val=1., bias=0.)
        ]),
    clip_frames=16,
    window_size=152,
    projection=dict(
        type='mmblockdrop.ConvTransformerProjection',
        in_channels=96,
        out_channels=96,
        arch=(1, 0, 4),
        num_heads=4,
        path_drop=0.1),
    neck=dict(
        type='mmblockdrop.FPNIdentity',
        in_channels=96,
        out_channels=96,
        num_levels=5),
    head=dict(
        type='mmblockdrop.ActionFormerHead',
        num_classes=16,
        in_channels=96,
        strides=[1, 2, 4, 8, 16],
        loss_normalizer=50),
    test_cfg=dict(score_thr=0.001, pre_nms_topk=2000))
