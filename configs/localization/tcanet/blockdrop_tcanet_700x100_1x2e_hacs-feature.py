# One of the three parts of TCANet's encoder that can be dropped goes.
_base_ = 'mmaction::localization/tcanet/tcanet_2xb8-700x100-9e_hacs-feature.py'
custom_imports = dict(imports=['mmblockdrop'], allow_failed_imports=False)
work_dir = 'work_dirs/blockdrop_tcanet_700x100_1x2e_hacs-feature'
stack = ['x_1d_b_f.2', 'lgtes']
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/tcanet_2xb8-2048x100-9e_hacs-feature/epoch_9.pth',
    # The regressors run on the way to the loss only.
    teacher_mode='loss',
    alignments=dict(
        block=dict(type='mmblockdrop.BlockAlignment', stack=stack),
        iou=dict(
            type='mmblockdrop.ModuleAlignment',
            module='tbr1',
            index=0,
            loss=dict(type='mmblockdrop.BinaryKLLoss')),
        segments=dict(
            type='mmblockdrop.ModuleAlignment',
            module='tbr1',
            index=1,
            loss=dict(type='mmblockdrop.GIoULoss'))))
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=1,
    epochs_per_round=2,
    metric='auc',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='auc'))
custom_hooks = [dict(type='mmblockdrop.BlockDropHook', stack=stack)]
