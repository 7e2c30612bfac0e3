# A quarter of the blocks of the encoder in front of BMN go.
_base_ = [
    './bmn_vit-w64-d8_8e_demo-actions.py',
    '../../_base_/schedules/rounds_from_scratch.py'
]
agree = dict(
    type='mmblockdrop.ModuleAlignment',
    loss=dict(type='mmblockdrop.BinaryKLLoss'))
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    checkpoint='work_dirs/bmn_vit-w64-d8_8e_demo-actions/epoch_8.pth',
    alignments=dict(
        block=dict(type='mmblockdrop.BlockAlignment'),
        confidence=dict(
            **agree, module='localizer.x_2d_p', mask='localizer.bm_mask'),
        start=dict(**agree, module='localizer.x_1d_s', mask='valid_steps'),
        end=dict(**agree, module='localizer.x_1d_e', mask='valid_steps'),
        cls=dict(
            type='mmblockdrop.ModuleAlignment',
            module='class_head',
            mask='valid_steps',
            loss=dict(type='mmblockdrop.BinaryKLLoss', logits=True))))
train_cfg = dict(
    _delete_=True,
    **_base_.rounds,
    epochs_per_round=1,
    score_dataloader=_base_.score_dataloader)
custom_hooks = _base_.round_hooks
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = _base_.round_schedule
