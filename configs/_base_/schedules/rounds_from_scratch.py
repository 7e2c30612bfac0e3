# Rounds of block drop for the small localizers: what is dropped is repaired in
# closed form, then aligned over half a cosine.
rounds = dict(
    type='mmblockdrop.DistillationLoop',
    drops='25%',
    lora=dict(rank=16),
    repair=dict(type='mmblockdrop.LinearRepair'))
round_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack='backbone.blocks'),
    dict(type='mmblockdrop.TimelineHook')
]
round_schedule = [
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        convert_to_iter_based=True)
]
