# All weights of a trunk that has been trained before, and a fresh localizer.
_base_ = [
    '../../../configs/demo_actions/'
    'actionformer_vit-w64-d8_8e_demo-actions.py'
]
trunk = 'work_dirs/compare_adaptation/trunk/epoch_8.pth'
model = dict(backbone=dict(pretrained=trunk))
train_cfg = dict(max_epochs=3, val_interval=3)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
