_base_ = [
    './adatad_vit-large-p16_videomae-k400-pre_4xb4-15e_activitynet13-768x160.py',
    '../_base_/schedules/rounds_15e.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    alignments=_base_.alignments,
    checkpoint='work_dirs/'
    'adatad_vit-large-p16_videomae-k400-pre_4xb4-15e_'
    'activitynet13-768x160/epoch_15.pth')
train_cfg = dict(
    _delete_=True,
    **_base_.rounds,
    score_dataloader=_base_.score_dataloader,
    lora=None)
custom_hooks = _base_.round_hooks
param_scheduler = _base_.round_schedule
