# What changes in a localizer that sees whole videos on 192 steps and finds
# actions of any class, as on ActivityNet-1.3.
whole_video = dict(
    window_size=192,
    projection=dict(
        out_channels=256, input_drop=0., use_abs_pe=True, max_seq_len=192),
    neck=dict(in_channels=256, out_channels=256),
    head=dict(
        num_classes=1,
        in_channels=256,
        label_smoothing=0.1,
        reg_weight=2.,
        loss_normalizer=200))
