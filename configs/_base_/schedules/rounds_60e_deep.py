# As rounds_60e.py, published for VideoMAE-L: a cosine over 80 epochs, and
# every epoch from 40 on is evaluated.
_base_ = './rounds_60e.py'
rounds = dict(validation=dict(dynamic_intervals=[(40, 1)]))
round_schedule = [
    dict(
        type='LinearLR',
        start_factor=1e-8,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=5,
        end=80,
        eta_min=1e-8,
        convert_to_iter_based=True)
]
