# Frames of 160 x 160 pixels. In training a random part of them, flipped,
# distorted and coloured at random, all frames of a window alike.
image_size = 160
train_pipeline = [
    dict(type='mmblockdrop.OpenVideo', num_threads=4),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 182)),
    dict(type='RandomResizedCrop'),
    dict(
        type='Resize', scale=(image_size, image_size), keep_ratio=False),
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
    dict(type='Resize', scale=(-1, image_size)),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]
