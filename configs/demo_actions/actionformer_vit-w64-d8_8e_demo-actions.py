# ActionFormer on eight blocks of width 64, from raw grey pixels, from scratch.
# A block sees windows of four steps, and the localizer behind them has one
# level and few convolutions: only the depth of the encoder relates gestures
# that are seconds apart.
_base_ = [
    '../_base_/models/actionformer_vit-w96-d8.py',
    '../_base_/datasets/demo_actions.py',
    '../_base_/schedules/from_scratch.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(mean=[121.], std=[30.]),
    backbone=dict(
        type='mmblockdrop.SmallViT',
        img_size=48,
        patch_size=16,
        in_channels=1,
        embed_dims=64,
        num_heads=2,
        num_frames=8,
        shifted_windows=True,
        use_learnable_pos_emb=True,
        # Behind a stem: each block begins with a tenth of its weight.
        init_values=0.1,
        stem=dict(channels=[8, 16, 32])),
    # The whole window is one clip: blocks pass on what they saw.
    clip_frames=256,
    window_size=128,
    projection=dict(in_channels=64, arch=(1, 0, 0), path_drop=0.),
    neck=dict(num_levels=1),
    head=dict(num_classes=9, num_convs=1, strides=[1]),
    test_cfg=dict(score_thr=0.005, pre_nms_topk=1000))

# One window a step: the number of steps decides how soon it learns.
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_epochs=8, val_interval=2)
