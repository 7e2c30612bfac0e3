# Rounds as published for ActivityNet-1.3: 15 epochs, learning from the result
# of the round before. The first half of the rounds is cheaper: eight epochs
# of a cosine over ten; a ratio below one takes a part of the videos as well.
_base_ = './rounds_60e.py'
warmup = dict(
    type='LinearLR', start_factor=1e-8, end=5, convert_to_iter_based=True)
cosine = dict(
    type='CosineAnnealingLR',
    begin=5,
    eta_min=1e-8,
    convert_to_iter_based=True)
# A softmax over one class would carry nothing.
alignments = dict(cls=dict(loss=dict(activation='sigmoid')))
rounds = dict(
    epochs_per_round=15,
    metric='tad/mAP',
    scorer=dict(metric='tad/mAP'),
    validation=dict(begin=3, interval=3, dynamic_intervals=[(8, 1)]),
    student=dict(dynamic_teacher=True),
    subset=dict(
        ratio=1.,
        rounds='first_half',
        epochs=8,
        validation=dict(begin=4, interval=1),
        param_scheduler=[warmup, dict(**cosine, end=10)]))
round_schedule = [warmup, dict(**cosine, end=15)]
