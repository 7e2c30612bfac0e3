_base_ = [
    '../_base_/models/actionformer_videomaev2-giant.py',
    '../_base_/models/adatad.py', '../_base_/models/whole_video.py',
    '../_base_/datasets/activitynet13.py',
    '../_base_/schedules/finetune_15e.py', '../_base_/ema_runtime.py'
]
model = dict(**_base_.whole_video, **_base_.adapters)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
