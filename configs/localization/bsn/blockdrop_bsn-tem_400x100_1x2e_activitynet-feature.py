# The second layer of TEM, the only one that keeps its width, goes.
_base_ = ('mmaction::localization/bsn/'
          'bsn_tem_1xb16-400x100-20e_activitynet-feature.py')
custom_imports = dict(imports=['mmblockdrop'], allow_failed_imports=False)
work_dir = 'work_dirs/blockdrop_bsn-tem_400x100_1x2e_activitynet-feature'
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/bsn_400x100_20e_1x16_activitynet_feature/'
    'tem_epoch_20.pth',
    alignments=dict(
        # Actionness, starts and ends, ahead of the sigmoid.
        curves=dict(
            type='mmblockdrop.ModuleAlignment',
            module='conv3',
            loss=dict(
                type='mmblockdrop.BinaryKLLoss', logits=True, scale=0.01))))
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=1,
    epochs_per_round=2,
    metric='curve/mAP',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='curve/mAP'))
val_evaluator = dict(_delete_=True, type='mmblockdrop.CurveMetric')
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack=['conv1', 'conv2'])
]
