"""Videos to detections, outside training."""
from .clip_cache import ReuseClipsHook
from .localize import localize_video, localize_videos
from .picture import (TimelineHook, TimelineRow, draw_localization,
                      draw_timeline, of_classes, read_actions)

__all__ = [
    'ReuseClipsHook', 'TimelineHook', 'TimelineRow', 'draw_localization',
    'draw_timeline', 'localize_video', 'localize_videos', 'of_classes',
    'read_actions'
]
