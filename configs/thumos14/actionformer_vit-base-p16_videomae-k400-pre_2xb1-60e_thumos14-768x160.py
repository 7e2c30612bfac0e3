# The whole encoder is trained.
_base_ = './actionformer_vit-base-p16-lora_videomae-k400-pre_2xb1-60e_thumos14-768x160.py'  # noqa: E501
model = dict(backbone=dict(lora=None, trainable=None))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
