# Videos written by tools/data/make_demo_data.py: nine actions that show in
# how an actor moves, 20 to 60 s at 10 frames per second.
_base_ = './untrimmed_video.py'
data_root = 'data/demo_actions'
cache_dir = 'data/cache/demo_actions'
num_classes = 9
image_size = 48
# A step is one tubelet of two frames, 0.2 s. 128 steps are 256 frames, in 16
# clips of 16.
window_size = 128
snippet_stride = 2
frames_per_step = 2

# Grey: colour says nothing about how an actor moves.
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
    window_size=window_size,
    snippet_stride=snippet_stride,
    frames_per_step=frames_per_step,
    pipeline=pipeline)

train_dataloader = dict(
    batch_size=4, dataset=dict(**videos, subset='training'))
val_dataloader = dict(
    batch_size=4, dataset=dict(**videos, subset='validation'))
test_dataloader = dict(batch_size=4, dataset=dict(**videos, subset='test'))
score_dataloader = dict(
    batch_size=4, dataset=dict(**videos, subset='training',
                               sample_ratio=0.25))
