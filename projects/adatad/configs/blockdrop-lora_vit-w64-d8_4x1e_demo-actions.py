# Half of the blocks go, one a round, with an epoch of alignment each, which
# trains LoRA.
_base_ = [
    './lora_vit-w64-d8_3e_demo-actions.py',
    '../../../configs/_base_/schedules/rounds_from_scratch.py'
]
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/compare_adaptation/lora/epoch_3.pth')
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=4,
    epochs_per_round=1,
    lora=dict(rank=16),
    score_dataloader=_base_.score_dataloader)
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack='backbone.blocks')
]
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = _base_.round_schedule
