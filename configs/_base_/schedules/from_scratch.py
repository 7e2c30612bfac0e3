# AdamW with one epoch of warm-up, then half a cosine to the last epoch. A
# config adds the number of epochs.
train_cfg = dict(by_epoch=True)
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
        eta_min_ratio=0.01,
        convert_to_iter_based=True)
]
