# BMN behind the encoder of the ActionFormer config, from raw pixels, with a
# class head beside it.
_base_ = '../../demo_actions/actionformer_vit-w64-d8_8e_demo-actions.py'
model = dict(
    _delete_=True,
    type='mmblockdrop.EndToEndLocalizer',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    clip_frames=_base_.model.clip_frames,
    localizer=dict(
        type='BMN',
        # A window has 128 steps of 0.2 s, BMN works on 64.
        temporal_dim=64,
        boundary_ratio=0.5,
        num_samples=16,
        num_samples_per_bin=3,
        feat_dim=64,
        hidden_dim_1d=64,
        hidden_dim_2d=64,
        hidden_dim_3d=128,
        soft_nms_alpha=0.4,
        soft_nms_low_threshold=0.5,
        soft_nms_high_threshold=0.9,
        post_process_top_k=100),
    class_head=dict(
        type='mmblockdrop.SnippetClassHead',
        in_channels=64,
        feat_channels=64,
        num_classes=_base_.num_classes))
