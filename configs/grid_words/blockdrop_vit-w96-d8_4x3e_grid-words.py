# Half of the blocks go, one a round, with three epochs of alignment each.
_base_ = './actionformer_vit-w96-d8_24e_grid-words.py'
epochs_per_round = 3
checkpoint = ('work_dirs/actionformer_vit-w96-d8_24e_grid-words/'
              'epoch_24.pth')
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint=checkpoint)
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=4,
    epochs_per_round=epochs_per_round,
    scorer=dict(type='mmblockdrop.MetricScorer'),
    score_dataloader=_base_.score_dataloader,
    lora=dict(rank=24))
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack='backbone.blocks')
]
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=epochs_per_round,
        eta_min_ratio=0.01,
        convert_to_iter_based=True)
]
