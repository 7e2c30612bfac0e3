# Changes of posture seen from the ceiling; eight blocks of width 64, from raw
# grey pixels, from scratch.
_base_ = [
    '../_base_/models/actionformer_vit-w96-d8.py',
    '../_base_/datasets/ceiling_adl.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(mean=[110.], std=[40.]),
    backbone=dict(
        img_size=64,
        patch_size=16,
        in_channels=1,
        embed_dims=64,
        num_heads=2,
        use_learnable_pos_emb=True,
        stem=dict(channels=[8, 16, 32])),
    window_size=256,
    # Changes last 1 to 10 s, 4 to 40 steps.
    projection=dict(
        in_channels=64, arch=(2, 1, 4), window_size=19, path_drop=0.),
    neck=dict(num_levels=5),
    head=dict(num_classes=4, strides=[1, 2, 4, 8, 16]),
    test_cfg=dict(score_thr=0.005, pre_nms_topk=1000))

max_epochs = 30
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
    clip_grad=dict(max_norm=1.))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        end=1,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=1,
        end=max_epochs,
        T_max=max_epochs - 1,
        eta_min_ratio=0.01,
        convert_to_iter_based=True)
]
