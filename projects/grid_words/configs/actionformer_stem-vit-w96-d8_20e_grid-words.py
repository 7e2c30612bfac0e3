# Convolutions in front of the blocks and a stronger localizer behind them:
# learns sooner, and seven of the eight blocks stay idle.
_base_ = './actionformer_vit-w96-d8_36e_grid-words.py'
model = dict(
    clip_frames=16,
    backbone=dict(
        type='mmblockdrop.SmallViT',
        num_frames=16,
        drop_path_rate=0.,
        stem=dict(channels=[8, 24, 48]),
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.),
            dict(type='Constant', layer='LayerNorm', val=1., bias=0.)
        ]),
    projection=dict(arch=(2, 1, 2)))
train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
