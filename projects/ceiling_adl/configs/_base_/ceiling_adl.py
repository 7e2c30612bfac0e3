# Falls and daily activities from a ceiling camera, 21 videos of 1 to 4
# minutes. The task is the four short changes; lasting states are background.
_base_ = '../../../../configs/_base_/datasets/untrimmed_video.py'
data_root = 'data/ceiling_adl_tad'
cache_dir = 'data/cache/ceiling_adl'
classes = ('standup', 'sitdown', 'falling', 'lying')
drop_labels = ('walk', 'sit', 'falled', 'sleeping', 'active')
num_classes = 4
image_size = 48
# A step is one tubelet of two frames, 0.24 s. 256 steps are 512 frames, one
# minute, in 32 clips of 16.
window_size = 256
snippet_stride = 2
frames_per_step = 2
val_split = dict(ratio=0.2, seed=0)

# A little larger than what the model sees, for random crops; grey.
frames = dict(
    type='mmblockdrop.CachedFrames',
    cache_dir=cache_dir,
    transforms=[
        dict(type='mmblockdrop.OpenVideo'),
        dict(type='DecordDecode'),
        dict(type='Resize', scale=(54, 54), keep_ratio=False),
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
    classes=classes,
    drop_labels=drop_labels,
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
    batch_size=1,
    dataset=dict(
        **train_part, windows_per_video=4, pipeline=train_pipeline))
val_dataloader = dict(dataset=val_part)
test_dataloader = dict(
    dataset=dict(**videos, subset='test', pipeline=test_pipeline))
score_dataloader = dict(
    dataset=dict(**train_part, sample_ratio=0.5, pipeline=test_pipeline))
