# ActionFormer on features computed beforehand (2048 channels, 2304 steps),
# attention limited to 19 steps.
model = dict(
    type='mmblockdrop.ActionFormer',
    data_preprocessor=dict(
        type='mmaction.ActionDataPreprocessor', format_shape='NCTHW'),
    backbone=None,
    window_size=2304,
    projection=dict(
        type='mmblockdrop.ConvTransformerProjection',
        in_channels=2048,
        out_channels=512,
        arch=(2, 2, 5),
        num_heads=4,
        window_size=19,
        path_drop=0.1,
        max_seq_len=2304),
    neck=dict(
        type='mmblockdrop.FPNIdentity',
        in_channels=512,
        out_channels=512,
        num_levels=6),
    head=dict(
        type='mmblockdrop.ActionFormerHead',
        num_classes=20,
        in_channels=512,
        strides=[1, 2, 4, 8, 16, 32],
        loss_normalizer=100),
    test_cfg=dict(score_thr=0.001, pre_nms_topk=2000))
