# Half of the layers of BMN that can be dropped go, one a round, with two
# epochs of alignment each.
_base_ = ('mmaction::localization/bmn/'
          'bmn_2xb8-400x100-9e_activitynet-feature.py')
custom_imports = dict(imports=['mmblockdrop'], allow_failed_imports=False)
work_dir = 'work_dirs/blockdrop_bmn_400x100_3x2e_activitynet-feature'
agree = dict(
    type='mmblockdrop.ModuleAlignment',
    loss=dict(type='mmblockdrop.BinaryKLLoss'))
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/bmn_400x100_2x8_9e_activitynet_feature/epoch_9.pth',
    alignments=dict(
        confidence=dict(**agree, module='x_2d_p', mask='bm_mask'),
        start=dict(**agree, module='x_1d_s'),
        end=dict(**agree, module='x_1d_e')))
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    drops=3,
    epochs_per_round=2,
    metric='auc',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='auc'))
custom_hooks = [
    dict(
        type='mmblockdrop.BlockDropHook',
        stack=[
            'x_1d_b.2', 'x_1d_s.0', 'x_1d_e.0', 'x_1d_p.0', 'x_2d_p.2',
            'x_2d_p.4'
        ])
]
