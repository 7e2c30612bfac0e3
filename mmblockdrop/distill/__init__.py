"""The teacher beside the student."""
from .alignment import (Alignment, BlockAlignment, ClassAlignment,
                        ModuleAlignment, SegmentAlignment)
from .losses import (ClassDKDLoss, ClassKLLoss, FeatureMSELoss,
                     TokenRelationLoss)
from .taps import tap
from .wrapper import TeacherStudentWrapper

__all__ = [
    'Alignment', 'BlockAlignment', 'ClassAlignment', 'ClassDKDLoss',
    'ClassKLLoss', 'FeatureMSELoss', 'ModuleAlignment', 'SegmentAlignment',
    'TeacherStudentWrapper', 'TokenRelationLoss', 'tap'
]
