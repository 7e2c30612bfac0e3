"""The student and its teacher: what is recorded, compared and learned."""
from mmblockdrop.utils.recorder import record

from .alignments import (Alignment, BlockAlignment, ClassAlignment,
                         FeatureAlignment, ModuleAlignment, SegmentAlignment)
from .losses import (BinaryKLLoss, ClassDKDLoss, ClassKLLoss, FeatureMSELoss,
                     TokenRelationLoss)
from .wrapper import TeacherStudentWrapper

__all__ = [
    'Alignment', 'BinaryKLLoss', 'BlockAlignment', 'ClassAlignment',
    'ClassDKDLoss', 'ClassKLLoss', 'FeatureAlignment', 'FeatureMSELoss',
    'ModuleAlignment', 'SegmentAlignment', 'TeacherStudentWrapper',
    'TokenRelationLoss', 'record'
]
