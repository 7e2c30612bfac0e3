"""The teacher beside the student."""
from .alignments import Alignment, ClassAlignment, SegmentAlignment
from .losses import (BinaryKLLoss, ClassDKDLoss, ClassKLLoss, FeatureMSELoss,
                     TokenRelationLoss)
from .feature_alignments import BlockAlignment, ModuleAlignment, PathwiseAlignment
from .recorder import tap
from .wrapper import TeacherStudentWrapper

__all__ = [
    'Alignment', 'BinaryKLLoss', 'BlockAlignment', 'ClassAlignment',
    'ClassDKDLoss', 'ClassKLLoss', 'FeatureMSELoss', 'ModuleAlignment',
    'PathwiseAlignment', 'SegmentAlignment', 'TeacherStudentWrapper',
    'TokenRelationLoss', 'tap'
]
