# LoRA of a quarter of the width on attention, norms and patch embedding.
_base_ = './full_vit-w64-d8_3e_demo-actions.py'
model = dict(
    backbone=dict(
        lora=dict(rank=16), trainable=['lora_', 'norm', 'patch_embed']))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.))))
