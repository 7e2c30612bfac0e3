# 1.0 G parameters. At 160 pixels the patches of 14 leave out the last six.
_base_ = './actionformer_videomae-small.py'
model = dict(
    backbone=dict(
        patch_size=14,
        embed_dims=1408,
        depth=40,
        num_heads=16,
        mlp_ratio=48 / 11,
        lora=dict(rank=352),
        pretrained='checkpoints/'
        'vit-giant-p14_videomaev2-hybrid_pt_1200e_k710_ft.pth'),
    projection=dict(in_channels=1408))
