"""Two rounds with LoRA, as a user of version 1 wrote them."""
_base_ = './baseline.py'
model = dict(
    _delete_=True, type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model, checkpoint='teacher.pth',
    alignments=dict(block=dict(type='mmblockdrop.BlockAlignment')))
train_cfg = dict(
    _delete_=True, type='mmblockdrop.DistillationLoop',
    drops=2, epochs_per_round=2, lora=dict(rank=2),
    scorer=dict(type='mmblockdrop.MetricScorer'))
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack='backbone.blocks')]
param_scheduler = [dict(type='CosineAnnealingLR', T_max=2,
                        convert_to_iter_based=True)]
