# PEM has two layers, of widths 32, 256 and 1: nothing in it can be replaced
# by its input. With a hidden layer as wide as the features the first can.
_base_ = ('mmaction::localization/bsn/'
          'bsn_pem_1xb16-400x100-20e_activitynet-feature.py')
custom_imports = dict(imports=['mmblockdrop'], allow_failed_imports=False)
work_dir = 'work_dirs/blockdrop_bsn-pem_32x32_1x2e_activitynet-feature'
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer={**_base_.model, 'pem_hidden_dim': 32},
    checkpoint='work_dirs/bsn-pem_32x32/epoch_20.pth',
    # PEM reads its inputs from the samples and predicts in the loss only.
    teacher_mode='loss',
    alignments=dict(
        score=dict(
            type='mmblockdrop.ModuleAlignment',
            module='fc2',
            loss=dict(
                type='mmblockdrop.BinaryKLLoss', logits=True, scale=0.1))))
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=1,
    protect=[1],
    epochs_per_round=2,
    metric='auc',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='auc'))
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack=['fc1', 'fc2'])
]
