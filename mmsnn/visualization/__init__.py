"""Pictures of what the networks see and say."""

from .cls_visualizer import ClsVisualizer, event_picture

__all__ = ['ClsVisualizer', 'event_picture']
