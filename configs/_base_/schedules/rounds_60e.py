# Rounds as published for THUMOS14: a quarter of the blocks, one a round; 60
# epochs of a cosine over 65, learning from the uncompressed model.
alignments = dict(
    block=dict(type='mmblockdrop.BlockAlignment'),
    cls=dict(
        type='mmblockdrop.ClassAlignment',
        loss=dict(type='mmblockdrop.ClassKLLoss', temperature=3.5)),
    # The paper writes GIoU, its configs use DIoU.
    seg=dict(
        type='mmblockdrop.SegmentAlignment',
        loss=dict(type='mmblockdrop.DIoULoss')))
rounds = dict(
    type='mmblockdrop.DistillationLoop',
    drops='25%',
    epochs_per_round=60,
    metric='tad/mAP@0.50',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='tad/mAP@0.50'),
    validation=dict(begin=10, interval=5))
round_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack='backbone.blocks'),
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=0.001,
        update_buffers=True),
    dict(type='mmblockdrop.TimelineHook')
]
round_schedule = [
    dict(
        type='LinearLR',
        start_factor=1e-8,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=5,
        end=65,
        eta_min=1e-8,
        convert_to_iter_based=True)
]
