_base_ = [
    '../_base_/models/actionformer_videomae-huge.py',
    '../_base_/models/adatad.py', '../_base_/datasets/thumos14.py',
    '../_base_/schedules/finetune_60e.py', '../_base_/ema_runtime.py'
]
model = _base_.adapters
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))))
