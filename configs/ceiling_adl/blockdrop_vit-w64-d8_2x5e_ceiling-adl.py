# A quarter of the blocks go, one a round, five epochs of alignment each.
_base_ = './actionformer_vit-w64-d8_30e_ceiling-adl.py'
epochs_per_round = 5
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/actionformer_vit-w64-d8_30e_ceiling-adl/'
    'epoch_30.pth')
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops='25%',
    epochs_per_round=epochs_per_round,
    score_dataloader=_base_.score_dataloader,
    lora=dict(rank=16))
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
