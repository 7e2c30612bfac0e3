_base_ = './my_localizer.py'
custom_imports = dict(imports=['my_project', 'mmblockdrop'])
model = dict(
    _delete_=True, type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model, checkpoint='work_dirs/my_localizer/epoch_2.pth',
    alignments=dict(block=dict(type='mmblockdrop.BlockAlignment')))
train_cfg = dict(
    _delete_=True, type='mmblockdrop.DistillationLoop',
    drops='25%', epochs_per_round=3, metric='steps/accuracy',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='steps/accuracy'))
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack='backbone.blocks')]
param_scheduler = [dict(type='CosineAnnealingLR', T_max=3,
                        convert_to_iter_based=True)]
