# The published recipe for ActivityNet-1.3: as on THUMOS14, with a detector at
# 1e-3 and the whole cosine in 15 epochs.
_base_ = './finetune_60e.py'
train_cfg = dict(max_epochs=15, val_begin=9)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.05))))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-8,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=5,
        end=15,
        eta_min=1e-8,
        convert_to_iter_based=True)
]
auto_scale_lr = dict(base_batch_size=16)
