# Frames of 160 x 160 pixels. In training a random part of them, flipped,
# distorted and coloured at random, all frames of a window alike.
train_pipeline = [
    dict(type='mmblockdrop.OpenVideo', num_threads=4),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='mmblockdrop.RandomSquareCrop', crop_size=160),
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
    dict(type='mmblockdrop.SquareCrop', crop_size=160),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs'),
]
