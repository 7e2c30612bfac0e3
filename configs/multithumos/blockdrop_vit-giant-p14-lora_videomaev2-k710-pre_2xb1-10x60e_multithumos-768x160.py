_base_ = [
    './actionformer_vit-giant-p14-lora_videomaev2-k710-pre_2xb1-80e_multithumos-768x160.py',
    '../_base_/schedules/rounds_60e_deep.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    alignments=_base_.alignments,
    checkpoint='work_dirs/'
    'actionformer_vit-giant-p14-lora_videomaev2-k710-pre_2xb1-80e_'
    'multithumos-768x160/epoch_80.pth')
train_cfg = dict(
    _delete_=True,
    **_base_.rounds | dict(
        metric='tad/mAP',
        scorer=dict(type='mmblockdrop.MetricScorer', metric='tad/mAP')),
    score_dataloader=_base_.score_dataloader,
    lora=_base_.model.backbone.lora)
custom_hooks = _base_.round_hooks
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.))))
param_scheduler = _base_.round_schedule
