_base_ = [
    '../_base_/models/actionformer_videomae-large.py',
    '../_base_/models/whole_video.py',
    '../_base_/datasets/activitynet13.py',
    '../_base_/schedules/finetune_15e.py',
    '../_base_/ema_runtime.py'
]
model = _base_.whole_video
