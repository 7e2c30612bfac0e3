_base_ = [
    '../_base_/models/actionformer_videomae-huge.py',
    '../_base_/datasets/thumos14.py',
    '../_base_/schedules/finetune_60e.py',
    '../_base_/ema_runtime.py'
]
