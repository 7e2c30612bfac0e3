"""The teacher beside the student."""
from .alignment import Alignment, ClassAlignment, SegmentAlignment
from .losses import (BinaryKLLoss, ClassDKDLoss, ClassKLLoss, FeatureMSELoss,
                     TokenRelationLoss)
from .pathwise import BlockAlignment, ModuleAlignment, PathwiseAlignment
from .taps import tap
from .wrapper import TeacherStudentWrapper

__all__ = [
    'Alignment', 'BinaryKLLoss', 'BlockAlignment', 'ClassAlignment',
    'ClassDKDLoss', 'ClassKLLoss', 'FeatureMSELoss', 'ModuleAlignment',
    'PathwiseAlignment', 'SegmentAlignment', 'TeacherStudentWrapper',
    'TokenRelationLoss', 'tap'
]
