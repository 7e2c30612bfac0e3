# VideoMAE-S on windows of 768 frames (48 clips of 16), as in the paper. Of the
# encoder, LoRA of rank width / 4, norms and patch embedding are trained.
model = dict(
    type='mmblockdrop.ActionFormer',
    data_preprocessor=dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW'),
    backbone=dict(
        type='mmblockdrop.LoRAViT',
        img_size=224,
        patch_size=16,
        embed_dims=384,
        depth=12,
        num_heads=6,
        mlp_ratio=4,
        qkv_bias=True,
        num_frames=16,
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        with_cp=True,
        lora=dict(rank=96),
        trainable=['lora_', 'norm', 'patch_embed'],
        pretrained='checkpoints/'
        'vit-small-p16_videomae-k400-pre_16x4x1_kinetics-400.pth'),
    clip_frames=16,
    window_size=768,
    projection=dict(
        type='mmblockdrop.ConvTransformerProjection',
        in_channels=384,
        out_channels=512,
        arch=(2, 2, 5),
        num_heads=4,
        path_drop=0.1,
        max_seq_len=768),
    neck=dict(
        type='mmblockdrop.FPNIdentity',
        in_channels=512,
        out_channels=512,
        num_levels=6),
    head=dict(
        type='mmblockdrop.ActionFormerHead',
        num_classes=20,
        in_channels=512,
        strides=[1, 2, 4, 8, 16, 32],
        regression_ranges=[(0, 4), (4, 8), (8, 16), (16, 32), (32, 64),
                           (64, 10000)],
        loss_normalizer=100),
    test_cfg=dict(score_thr=0.001, pre_nms_topk=2000))
