# Half of the blocks go, one a round, with two epochs of alignment each.
_base_ = [
    './actionformer_stem-vit-w96-d8_20e_grid-words.py',
    '../../../configs/_base_/schedules/rounds_from_scratch.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/actionformer_stem-vit-w96-d8_20e_grid-words/'
    'epoch_20.pth')
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops='50%',
    epochs_per_round=2,
    scorer=dict(type='mmblockdrop.MetricScorer'),
    score_dataloader=_base_.score_dataloader,
    lora=dict(rank=24),
    repair=dict(type='mmblockdrop.LinearRepair'))
custom_hooks = _base_.round_hooks
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = _base_.round_schedule
