# The whole encoder is trained.
_base_ = './actionformer_vit-small-p16-lora_videomae-k400-pre_4xb4-15e_activitynet13-768x160.py'  # noqa: E501
model = dict(
    backbone=dict(lora=None, trainable=None),
    projection=dict(input_drop=0.2))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.01))))
