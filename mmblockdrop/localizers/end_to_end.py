"""A video encoder in front of any localizer."""
import copy
from typing import Any, Dict, List, Optional, Union

from mmblockdrop.backbones.base import VideoEncoder, resample
from mmblockdrop.localizers.mmaction2.bridge import ProposalBridge, is_window
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.messages import require_choice

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

#: Where localizers keep the number of steps they work on, and the channels
#: they expect.
SIZE_KEYS = ('temporal_dim', 'window_size', 'tscale')
WIDTH_KEYS = ('feat_dim', 'tem_feat_dim')
MODES = ('loss', 'predict', 'tensor')


@MODELS.register_module()
class EndToEndLocalizer(BaseModel):
    """Frames to features to any localizer, in one model.

    The localizer is built from its own config and works on features of a grid
    of ``temporal_size`` steps. A class that declares ``reads_windows = True``
    is given batches of windows of ``UntrimmedVideoDataset`` as they are, with
    ground truth in grid steps, and adds ``pred_instances`` in seconds. To all
    others, such as BMN, TEM and TCANet, a window looks like a video, see
    :mod:`~mmblockdrop.localizers.mmaction2.bridge`.

    Args:
        localizer: Config of a localizer that takes features ``[C, T]`` in the
            modes of mmaction2: BMN, TEM, TCANet, ``mmblockdrop.ActionFormer``
            without backbone, or another.
        backbone: Config of the encoder, as of ``mmblockdrop.ActionFormer``;
            None if the inputs are features ``[B, C, T]``.
        clip_frames: Frames per clip.
        frame_wise: Whether the encoder takes images ``[N, 3, H, W]``; it
            then sees every frame by itself.
        temporal_size: Steps of the localizer. Defaults to ``temporal_dim``
            or ``window_size`` of its config.
        clip_chunk: Clips the encoder sees at once where no gradients are
            computed, None for all.
        pooling: See ``mmblockdrop.ActionFormer``.
        class_head: Config of a head that gives proposals their classes, such
            as ``mmblockdrop.SnippetClassHead``. Defaults to None.
        proposals: JSON file of the proposals that TCANet refines, see
            :class:`~mmblockdrop.localizers.mmaction2.bridge.ProposalFile`.
        data_preprocessor: Config of the preprocessor.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: ``temporal_size`` is not known.
    """

    def __init__(self,
                 localizer: dict,
                 backbone: Optional[dict] = None,
                 clip_frames: int = 16,
                 frame_wise: bool = False,
                 temporal_size: Optional[int] = None,
                 clip_chunk: Optional[int] = None,
                 pooling: str = 'mean',
                 class_head: Optional[dict] = None,
                 proposals: Optional[str] = None,
                 data_preprocessor: Union[dict, nn.Module, None] = None,
                 init_cfg: Union[dict, List[dict], None] = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone) if backbone else None
        self.localizer = MODELS.build(copy.deepcopy(localizer))
        self.class_head = MODELS.build(class_head) if class_head else None
        self.temporal_size = temporal_size or _known_size(
            self.localizer, localizer)
        self.encoder = VideoEncoder(self.temporal_size, clip_frames,
                                    clip_chunk, pooling, frame_wise)
        self.width = {
            key: localizer[key]
            for key in WIDTH_KEYS if key in localizer
        }
        self.bridge = None if getattr(
            self.localizer, 'reads_windows',
            False) else ProposalBridge(proposals)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Features of the localizer's steps.

        Args:
            inputs: Normalized frames ``[B, 1, 3, F, H, W]``, or features
                ``[B, C, T']`` when there is no backbone.

        Returns:
            Features ``[B, C, temporal_size]``, float32.

        Raises:
            ValueError: If the shape or the channels do not fit.
        """
        if self.backbone is not None:
            feats = self.encoder(self.backbone, inputs)
        elif inputs.dim() == 3:
            feats = resample(inputs.float(), self.temporal_size)
        else:
            raise ValueError(
                f'inputs have shape {tuple(inputs.shape)}, expected features '
                '[B, C, T]; for frames set model.backbone')
        for key, width in self.width.items():
            if feats.size(1) != width:
                raise ValueError(
                    f'model.localizer.{key}={width}, but the features have '
                    f'{feats.size(1)} channels')
        return feats

    def forward(self,
                inputs: Union[Tensor, List[Tensor]],
                data_samples: Optional[list] = None,
                mode: str = 'tensor') -> Any:
        """Run encoder and localizer.

        Args:
            inputs: As in :meth:`extract_feat`, or a list of samples.
            data_samples: One sample per window; needed for 'loss' and
                'predict'.
            mode: 'loss', 'predict' or 'tensor'.

        Returns:
            'loss': dict of losses, the localizer's and ``loss_class`` if
            there is a class head; 'predict': the samples with
            ``pred_instances`` (``curves`` for TEM); 'tensor': what the
            localizer returns.

        Raises:
            ValueError: The mode is unknown.
        """
        require_choice('mode', mode, MODES)
        if isinstance(inputs, (list, tuple)):
            inputs = torch.stack(list(inputs))
        feats = self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(feats, data_samples)
        if mode == 'predict':
            return self.predict(feats, data_samples)
        if self.class_head is not None:
            self.class_head(feats)
        return self.localizer(list(feats), data_samples, mode=mode)

    def loss(self, feats: Tensor, data_samples: list) -> Dict[str, Tensor]:
        """Losses of the localizer and of the class head.

        Args:
            feats: Features ``[B, C, T]``.
            data_samples: Samples with ground truth.

        Returns:
            Losses by name.
        """
        if self.bridge is None:
            losses = self.localizer(list(feats), data_samples, mode='loss')
        else:
            losses = self.bridge.loss(self.localizer, feats, data_samples)
        if self.class_head is not None:
            losses.update(self.class_head.loss(feats, data_samples))
        return losses

    def predict(self, feats: Tensor, data_samples: list) -> list:
        """Detections of each window, before windows are merged.

        Args:
            feats: Features ``[B, C, T]``.
            data_samples: One sample per window.

        Returns:
            The samples, see :meth:`forward`.
        """
        if self.bridge is None:
            return self.localizer(list(feats), data_samples, mode='predict')
        results = self.bridge.predict(self.localizer, feats, data_samples)
        if self.class_head is not None and all(map(is_window, data_samples)):
            self.class_head.classify(feats, results)
        return results


def _known_size(model: nn.Module, cfg: dict) -> int:
    """Steps that a localizer works on, by its config or itself."""
    for key in SIZE_KEYS:
        size = cfg.get(key, getattr(model, key, None))
        if size is not None:
            return int(size)
    raise ValueError(
        f'model.localizer of type {cfg.get("type")!r} names none of '
        f'{SIZE_KEYS}: set model.temporal_size to the steps it works on')
