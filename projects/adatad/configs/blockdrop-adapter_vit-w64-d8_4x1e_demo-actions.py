# Half of the blocks go, one a round, with an epoch of alignment each, which
# trains the adapters that remain.
_base_ = [
    './adapter_vit-w64-d8_3e_demo-actions.py',
    '../../../configs/_base_/schedules/rounds_from_scratch.py'
]
stack = 'backbone.encoder.blocks'
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    alignments=dict(
        block=dict(type='mmblockdrop.BlockAlignment', stack=stack),
        cls=dict(type='mmblockdrop.ClassAlignment'),
        seg=dict(type='mmblockdrop.SegmentAlignment')),
    checkpoint='work_dirs/compare_adaptation/adapter/epoch_3.pth')
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=4,
    epochs_per_round=1,
    lora=None,
    score_dataloader=_base_.score_dataloader)
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack=stack)
]
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = _base_.round_schedule
