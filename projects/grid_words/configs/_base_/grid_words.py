# GRID speaker 1: 16 words read from the lips, 250 videos of 12 s.
# The test part is for the final table only; the best epoch is chosen on a
# part of the training videos, and candidates are scored on another.
_base_ = '../../../../configs/_base_/datasets/untrimmed_video.py'
data_root = 'data/grid_s1_words_tad'
cache_dir = 'data/cache/grid_words'
num_classes = 16
image_size = 32
# A step is one tubelet of two frames. 152 steps are 304 frames: a whole video
# of 300 frames and four frames of padding, in 4 clips of 76 or 19 of 16.
window_size = 152
snippet_stride = 2
frames_per_step = 2
val_split = dict(ratio=0.15, seed=0)

# The middle of the picture, where the mouth is, a little larger than what the
# model sees, for random crops; grey.
frames = dict(
    type='mmblockdrop.CachedFrames',
    cache_dir=cache_dir,
    transforms=[
        dict(type='mmblockdrop.OpenVideo'),
        dict(type='DecordDecode'),
        dict(type='Resize', scale=(54, 54), keep_ratio=False),
        dict(type='CenterCrop', crop_size=36),
        dict(type='mmblockdrop.ToGray'),
    ])
train_pipeline = [
    frames,
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='RandomCrop', size=image_size),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='mmblockdrop.JitterContrast'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]
test_pipeline = [
    frames,
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]

videos = dict(
    data_root=data_root,
    window_size=window_size,
    snippet_stride=snippet_stride,
    frames_per_step=frames_per_step)
val_part = dict(
    **videos,
    subset='training',
    split=dict(part='val', **val_split),
    pipeline=test_pipeline)
train_part = dict(
    **videos, subset='training', split=dict(part='train', **val_split))

train_dataloader = dict(
    batch_size=4, dataset=dict(**train_part, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, dataset=val_part)
test_dataloader = dict(
    batch_size=4,
    dataset=dict(**videos, subset='test', pipeline=test_pipeline))
score_dataloader = dict(
    batch_size=4,
    dataset=dict(**train_part, sample_ratio=0.25, pipeline=test_pipeline))
