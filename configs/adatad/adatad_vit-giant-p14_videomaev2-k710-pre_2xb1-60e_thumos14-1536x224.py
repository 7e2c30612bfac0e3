# Two frames of each step, at 224 pixels; adapters in the last half of the
# blocks.
_base_ = './adatad_vit-giant-p14_videomaev2-k710-pre_2xb1-60e_thumos14-768x160.py'
model = dict(backbone=dict(adapters=dict(blocks=list(range(20, 40)))))
train_pipeline = [
    dict(type='mmblockdrop.OpenVideo', num_threads=4),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='mmblockdrop.RandomSquareCrop', crop_size=224),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='mmblockdrop.RandAugmentClip'),
    dict(type='ColorJitter'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]
test_pipeline = [
    dict(type='mmblockdrop.OpenVideo', num_threads=4),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='mmblockdrop.SquareCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]
train_dataloader = dict(
    dataset=dict(frames_per_step=2, pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(frames_per_step=2, pipeline=test_pipeline))
test_dataloader = val_dataloader
score_dataloader = val_dataloader
