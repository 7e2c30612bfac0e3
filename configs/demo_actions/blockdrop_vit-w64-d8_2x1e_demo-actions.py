# A quarter of the blocks go, one a round, one epoch of alignment each.
_base_ = [
    './actionformer_vit-w64-d8_8e_demo-actions.py',
    '../_base_/schedules/rounds_from_scratch.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/actionformer_vit-w64-d8_8e_demo-actions/'
    'epoch_8.pth')
train_cfg = dict(
    _delete_=True,
    **_base_.rounds,
    epochs_per_round=1,
    score_dataloader=_base_.score_dataloader)
custom_hooks = _base_.round_hooks
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = _base_.round_schedule
