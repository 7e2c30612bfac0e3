# The published recipe for THUMOS14: AdamW, the encoder at half the rate; per
# iteration five epochs of warm-up and a cosine over 100, cut off at 60. No
# decay on biases, norms and scales of the localizer.
train_cfg = dict(by_epoch=True, max_epochs=60, val_begin=45)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys={
            'backbone': dict(lr_mult=0.5),
            'scale': dict(decay_mult=0.)
        }),
    clip_grad=dict(max_norm=1.))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-8,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=5,
        end=100,
        eta_min=1e-8,
        convert_to_iter_based=True)
]
auto_scale_lr = dict(enable=False, base_batch_size=2)
