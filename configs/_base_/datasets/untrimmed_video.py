# What the loaders of all video data sets share. A data set adds its folder,
# its classes, its subsets, its windows and a pipeline.
videos = dict(
    type='mmblockdrop.UntrimmedVideoDataset',
    ann_file='annotations.json',
    data_prefix=dict(video='videos'),
    classes='category_idx.txt')
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=videos)
val_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**videos, test_mode=True))
test_dataloader = val_dataloader
# Training videos on which the candidates of a round are scored.
score_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**videos, test_mode=True))

val_evaluator = dict(
    type='mmblockdrop.TADMetric', tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7])
test_evaluator = val_evaluator
