_base_ = './actionformer_videomae-small.py'
model = dict(
    backbone=dict(
        embed_dims=768,
        depth=12,
        num_heads=12,
        lora=dict(rank=192),
        pretrained='https://download.openmmlab.com/mmaction/v1.0/'
        'recognition/videomae/vit-base-p16_videomae-k400-pre_16x4x1_'
        'kinetics-400_20221013-860a3cd3.pth'),
    projection=dict(in_channels=768))
