# Videos written by tools/data/make_demo_data.py: nine actions, told apart by
# what an actor does at both ends of each; 20 to 60 s, 10 frames per second.
_base_ = './untrimmed_video.py'
data_root = 'data/demo_actions'
cache_dir = 'data/cache/demo_actions'
num_classes = 9
image_size = 48
# A step is one tubelet of two frames, 0.2 s; 128 steps are 256 frames.
window_size = 128
snippet_stride = 2
frames_per_step = 2

# Grey: colour says nothing about how an actor moves. A little larger than what
# the model sees, for random crops.
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
    window_size=window_size,
    snippet_stride=snippet_stride,
    frames_per_step=frames_per_step)

train_dataloader = dict(
    batch_size=4,
    dataset=dict(**videos, subset='training', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4,
    dataset=dict(**videos, subset='validation', pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=4,
    dataset=dict(**videos, subset='test', pipeline=test_pipeline))
score_dataloader = dict(
    batch_size=4,
    dataset=dict(
        **videos,
        subset='training',
        sample_ratio=0.125,
        pipeline=test_pipeline))
