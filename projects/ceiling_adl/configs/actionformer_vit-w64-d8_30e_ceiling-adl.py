# Changes of posture seen from the ceiling; eight blocks of width 64, from raw
# grey pixels, from scratch.
_base_ = [
    '../../../configs/_base_/models/actionformer_vit-w96-d8.py',
    './_base_/ceiling_adl.py',
    '../../../configs/_base_/schedules/from_scratch.py',
    '../../../configs/_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(mean=[110.], std=[40.]),
    backbone=dict(
        type='mmblockdrop.SmallViT',
        img_size=48,
        patch_size=16,
        in_channels=1,
        embed_dims=64,
        num_heads=2,
        use_learnable_pos_emb=True,
        # Behind a stem: each block begins with a tenth of its weight.
        init_values=0.1,
        stem=dict(channels=[8, 16, 32])),
    window_size=256,
    # Changes last 1 to 10 s, 4 to 40 steps.
    projection=dict(
        in_channels=64, arch=(1, 0, 4), window_size=19, path_drop=0.),
    neck=dict(num_levels=5),
    head=dict(num_classes=4, strides=[1, 2, 4, 8, 16]),
    test_cfg=dict(score_thr=0.005, pre_nms_topk=1000))

train_cfg = dict(max_epochs=30, val_interval=5)
optim_wrapper = dict(optimizer=dict(fused=True))
