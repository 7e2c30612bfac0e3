"""Bridge to the localizers of mmaction2: BMN, TEM, TCANet."""
from .class_head import SnippetClassHead

__all__ = ['SnippetClassHead']
