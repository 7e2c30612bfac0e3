"""Head and alignment of the published code."""
from typing import Any, Tuple

from mmblockdrop.distillation import BlockAlignment
from mmblockdrop.localizers import ActionFormerHead
from mmblockdrop.registry import MODELS

from torch import Tensor, nn


@MODELS.register_module()
class PublishedActionFormerHead(ActionFormerHead):
    """Head whose running number of positive points is cut on loading.

    The published head keeps ``loss_normalizer`` as an integer until the first
    training step. Loading weights therefore cuts the number to a whole one,
    and the training losses of the first steps after it are divided by too
    little, by up to one part in that number.

    Takes the arguments of
    :class:`~mmblockdrop.localizers.actionformer.head.ActionFormerHead`.
    """

    def _load_from_state_dict(self, state_dict: dict, prefix: str,
                              *args: Any) -> None:
        key = prefix + 'loss_normalizer'
        if key in state_dict:
            state_dict[key] = state_dict[key].trunc()
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class PublishedBlockAlignment(BlockAlignment):
    """Alignment of blocks that also counts padding.

    The published feature losses take the mean over all frames of a window,
    also over those that only repeat the last frame of a video. The student is
    trained to repeat the teacher on frames without video, and the loss on
    real video weighs the less the shorter the video is.

    Takes the arguments of
    :class:`~mmblockdrop.distillation.BlockAlignment`.
    """

    def real_video(self, path: str, s: Tensor, t: Tensor, student: nn.Module,
                   data_samples: list) -> Tuple[Tensor, Tensor]:
        """Both features as they are."""
        return s, t
