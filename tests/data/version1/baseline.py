"""ActionFormer end to end on frames, as a user of version 1 wrote it."""
default_scope = 'mmaction'
custom_imports = dict(imports=['my_videos', 'mmblockdrop'])
model = dict(
    type='mmblockdrop.ActionFormer',
    window_size=8,
    clip_frames=8,
    data_preprocessor=dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[60.] * 3,
        std=[60.] * 3,
        format_shape='NCTHW'),
    backbone=dict(
        type='mmblockdrop.LoRAViT',
        img_size=16,
        patch_size=8,
        embed_dims=8,
        depth=4,
        num_heads=2,
        num_frames=8),
    projection=dict(
        type='mmblockdrop.ConvTransformerProjection',
        in_channels=8,
        out_channels=8,
        arch=(1, 0, 1),
        num_heads=2,
        path_drop=0.),
    neck=dict(
        type='mmblockdrop.FPNIdentity',
        in_channels=8,
        out_channels=8,
        num_levels=2),
    head=dict(
        type='mmblockdrop.ActionFormerHead',
        num_classes=2,
        in_channels=8,
        num_convs=1,
        strides=[1, 2]))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='Ramps', videos=24))
val_dataloader = test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='Ramps', videos=24, seed=1))
val_evaluator = test_evaluator = dict(
    type='mmblockdrop.TADMetric', tiou_thresholds=[0.3, 0.5, 0.7, 0.8, 0.9])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=1.))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=5,
                        convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=2)
log_level = 'WARNING'
