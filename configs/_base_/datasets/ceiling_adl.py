# Falls and daily activities from a ceiling camera, 21 videos of 1 to 4
# minutes. The task is the four short changes; lasting states are background.
_base_ = './untrimmed_video.py'
data_root = 'data/ceiling_adl_tad'
cache_dir = 'data/cache/ceiling_adl'
classes = ('standup', 'sitdown', 'falling', 'lying')
drop_labels = ('walk', 'sit', 'falled', 'sleeping', 'active')
num_classes = 4
image_size = 64
# A step is one tubelet of two frames, 0.24 s. 256 steps are 512 frames, one
# minute, in 32 clips of 16.
window_size = 256
snippet_stride = 2
frames_per_step = 2
val_split = dict(ratio=0.2, seed=0)

frames = dict(
    type='mmblockdrop.CachedFrames',
    cache_dir=cache_dir,
    transforms=[
        dict(type='mmblockdrop.OpenVideo'),
        dict(type='DecordDecode'),
        dict(
            type='Resize', scale=(image_size, image_size), keep_ratio=False),
        dict(type='mmblockdrop.ToGray'),
    ])
pipeline = [
    frames,
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]

videos = dict(
    data_root=data_root,
    classes=classes,
    drop_labels=drop_labels,
    window_size=window_size,
    snippet_stride=snippet_stride,
    frames_per_step=frames_per_step,
    pipeline=pipeline)

train_dataloader = dict(
    dataset=dict(
        **videos,
        subset='training',
        split=dict(part='train', **val_split),
        windows_per_video=4))
val_dataloader = dict(
    dataset=dict(
        **videos, subset='training', split=dict(part='val', **val_split)))
test_dataloader = dict(dataset=dict(**videos, subset='test'))
score_dataloader = dict(
    dataset=dict(
        **videos,
        subset='training',
        split=dict(part='train', **val_split),
        sample_ratio=0.5))
