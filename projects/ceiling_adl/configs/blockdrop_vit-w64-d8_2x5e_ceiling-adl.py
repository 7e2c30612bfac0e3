# A quarter of the blocks go, one a round, five epochs of alignment each.
_base_ = [
    './actionformer_vit-w64-d8_30e_ceiling-adl.py',
    '../../../configs/_base_/schedules/rounds_from_scratch.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/actionformer_vit-w64-d8_30e_ceiling-adl/'
    'epoch_30.pth')
train_cfg = dict(
    _delete_=True,
    **_base_.rounds,
    epochs_per_round=5,
    score_dataloader=_base_.score_dataloader)
custom_hooks = _base_.round_hooks
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = _base_.round_schedule
