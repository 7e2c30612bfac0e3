"""Videos to detections, outside training."""
from .clip_cache import ReuseClipsHook
from .localize import localize_video, localize_videos
from .picture import TimelineRow, draw_timeline

__all__ = [
    'ReuseClipsHook', 'TimelineRow', 'draw_timeline', 'localize_video',
    'localize_videos'
]
