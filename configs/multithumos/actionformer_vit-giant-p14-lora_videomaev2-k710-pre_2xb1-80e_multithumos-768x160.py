_base_ = [
    '../_base_/models/actionformer_videomaev2-giant.py',
    '../_base_/datasets/multithumos.py',
    '../_base_/schedules/finetune_80e.py',
    '../_base_/ema_runtime.py'
]
model = dict(
    projection=dict(arch=(3, 0, 5)),
    head=dict(num_classes=65),
    test_cfg=dict(pre_nms_topk=8000))
