# As actionformer_dinov2-small, with the first three stages of TinyViT-5M as
# trained for MobileSAM. It merges patches behind the third stage at stride 2.
_base_ = './actionformer_dinov2-small_30e_ceiling-adl.py'
image_size = 128
model = dict(
    backbone=dict(
        encoder=dict(
            _delete_=True,
            type='mmpretrain.TinyViT',
            arch='5m',
            img_size=(image_size, image_size),
            window_size=[7, 7, 14, 7],
            out_indices=(2, )),
        pretrained=None),
    projection=dict(in_channels=320))

frames = [
    dict(type='mmblockdrop.OpenVideo'),
    dict(type='mmblockdrop.SampleWindow'),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs')
]
grid = dict(pipeline=frames)
train_dataloader = dict(dataset=grid)
val_dataloader = dict(dataset=grid)
test_dataloader = dict(dataset=grid)
score_dataloader = dict(dataset=grid)
