_base_ = './actionformer_videomae-small.py'
model = dict(
    backbone=dict(
        embed_dims=1024,
        depth=24,
        num_heads=16,
        lora=dict(rank=256),
        pretrained='https://download.openmmlab.com/mmaction/v1.0/'
        'recognition/videomae/vit-large-p16_videomae-k400-pre_16x4x1_'
        'kinetics-400_20221013-229dbb03.pth'),
    projection=dict(in_channels=1024))
