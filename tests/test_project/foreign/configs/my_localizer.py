default_scope = 'mmaction'
custom_imports = dict(imports=['my_project'])
model = dict(
    type='ActionnessLocalizer',
    backbone=dict(
        type='FeatureEncoder', in_channels=6, channels=8, num_blocks=4),
    channels=8)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='FeatureFolder', videos=8))
val_dataloader = test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='FeatureFolder', videos=4, seed=1))
val_evaluator = test_evaluator = dict(type='StepAccuracy')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
log_level = 'WARNING'
