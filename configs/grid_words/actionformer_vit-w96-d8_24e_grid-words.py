# ActionFormer on eight blocks of width 96, from raw grey pixels, from scratch.
_base_ = [
    '../_base_/models/actionformer_vit-w96-d8.py',
    '../_base_/datasets/grid_words.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(mean=[140.], std=[25.]),
    backbone=dict(
        img_size=48,
        in_channels=1,
        num_heads=3,
        use_learnable_pos_emb=True,
        stem=dict(channels=[16, 32, 64])),
    # Words last 0.07 to 0.4 s, one to five steps.
    projection=dict(arch=(2, 1, 2), window_size=9, path_drop=0.),
    neck=dict(num_levels=3),
    head=dict(strides=[1, 2, 4]),
    test_cfg=dict(score_thr=0.005, pre_nms_topk=1000))

max_epochs = 24
train_dataloader = dict(batch_size=2)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=4)
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
