# Changes of posture seen from the ceiling; DINOv2 ViT-S/14 frame by frame,
# frozen, with ActionFormer behind. Of each frame the class token and the mean
# of the patch tokens are used.
_base_ = [
    '../../../configs/_base_/models/actionformer_vit-w96-d8.py',
    '../../ceiling_adl/configs/_base_/ceiling_adl.py',
    '../../../configs/_base_/schedules/from_scratch.py',
    '../../../configs/_base_/default_runtime.py'
]
image_size = 84
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmblockdrop.FrameEncoder',
        encoder=dict(
            type='mmpretrain.VisionTransformer',
            arch='dinov2-small',
            img_size=image_size,
            patch_size=14,
            layer_scale_init_value=1e-5,
            out_type='raw',
            frozen_stages=12),
        pretrained='https://download.openmmlab.com/mmpretrain/v1.0/dinov2/'
        'vit-small-p14_dinov2-pre_3rdparty_20230426-5641ca5a.pth'),
    clip_frames=16,
    # 256 steps of two frames, one of which is seen: one minute.
    window_size=256,
    projection=dict(
        in_channels=768,
        out_channels=128,
        arch=(1, 0, 4),
        window_size=19,
        path_drop=0.1),
    neck=dict(in_channels=128, out_channels=128, num_levels=5),
    head=dict(num_classes=4, in_channels=128, strides=[1, 2, 4, 8, 16]),
    test_cfg=dict(score_thr=0.005, pre_nms_topk=1000))

frames = [
    dict(type='mmblockdrop.OpenVideo'),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs')
]
grid = dict(frames_per_step=1, pipeline=frames)
train_dataloader = dict(batch_size=2, dataset=grid)
val_dataloader = dict(dataset=grid)
test_dataloader = dict(dataset=grid)
score_dataloader = dict(dataset=grid)

train_cfg = dict(max_epochs=30, val_interval=30)
optim_wrapper = dict(optimizer=dict(fused=True))
