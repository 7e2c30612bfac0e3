# Weights and buffers averaged over iterations with a decay of 0.999; the
# averages are evaluated and are what a checkpoint holds as its weights.
_base_ = './default_runtime.py'
ema = dict(
    type='EMAHook',
    ema_type='ExponentialMovingAverage',
    momentum=0.001,
    update_buffers=True)
custom_hooks = [dict(type='mmblockdrop.SeedEpochHook'), ema]
