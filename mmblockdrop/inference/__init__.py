"""Videos to detections, outside training."""
from .localize import localize_video, localize_videos
from .picture import TimelineRow, draw_timeline
from .reuse_hook import ReuseClipsHook

__all__ = [
    'ReuseClipsHook', 'TimelineRow', 'draw_timeline', 'localize_video',
    'localize_videos'
]
