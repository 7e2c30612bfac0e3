_base_ = [
    './adatad_vit-giant-p14_videomaev2-k710-pre_2xb1-60e_thumos14-768x160.py',
    '../_base_/schedules/rounds_60e_deep.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    alignments=_base_.alignments,
    checkpoint='work_dirs/'
    'adatad_vit-giant-p14_videomaev2-k710-pre_2xb1-60e_'
    'thumos14-768x160/epoch_60.pth')
train_cfg = dict(
    _delete_=True,
    **_base_.rounds,
    score_dataloader=_base_.score_dataloader,
    lora=None)
custom_hooks = _base_.round_hooks
param_scheduler = _base_.round_schedule
