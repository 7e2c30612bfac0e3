# ActionFormer on eight blocks of width 96, from raw grey pixels, from scratch:
# patches straight into the blocks, and a localizer that leaves them the work.
_base_ = [
    '../../../configs/_base_/models/actionformer_vit-w96-d8.py',
    './_base_/grid_words.py',
    '../../../configs/_base_/schedules/from_scratch.py',
    '../../../configs/_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(mean=[140.], std=[25.]),
    backbone=dict(
        img_size=32,
        in_channels=1,
        num_heads=3,
        num_frames=76,
        use_learnable_pos_emb=True,
        drop_path_rate=0.1,
        # Branches begin at half their strength: eight blocks learn a little
        # sooner.
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.06, bias=0.),
            dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
            dict(
                type='mmblockdrop.ScaleWeights',
                layers=['attn.proj', 'mlp.layers.1'],
                factor=0.5)
        ]),
    # Attention over three seconds, longer than any word.
    clip_frames=76,
    # Words last 0.07 to 0.4 s, one to five steps.
    projection=dict(arch=(1, 0, 2), window_size=9, path_drop=0.),
    neck=dict(num_levels=3),
    head=dict(strides=[1, 2, 4]),
    test_cfg=dict(score_thr=0.005, pre_nms_topk=1000))

# One video a step: the number of steps decides how soon it learns.
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_epochs=36, val_interval=4)
# fused: a sixth of the time of a step of the optimizer; on a CPU, torch 2.4
# or later.
optim_wrapper = dict(optimizer=dict(lr=6e-4, fused=True))
