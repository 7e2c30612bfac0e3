_base_ = './actionformer_videomae-small.py'
model = dict(
    backbone=dict(
        embed_dims=1280,
        depth=32,
        num_heads=16,
        lora=dict(rank=320),
        pretrained='checkpoints/'
        'vit-huge-p16_videomae-k400-pre_16x4x1_kinetics-400.pth'),
    projection=dict(in_channels=1280))
