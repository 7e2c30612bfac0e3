"""Someone's own data set: actions grow brighter or darker."""
import numpy as np
import torch
from mmaction.registry import DATASETS
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

FRAMES, SIZE = 16, 16
STEPS = FRAMES // 2


@DATASETS.register_module()
class Ramps(Dataset):
    """Videos of one window each; a real data set would read files."""

    metainfo = dict(classes=['falling', 'rising'])

    def __init__(self, videos, seed=0):
        self.samples = [self._make(seed * 1000 + i) for i in range(videos)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    @staticmethod
    def _make(seed):
        rng = np.random.default_rng(seed)
        frames = rng.normal(60, 25, (3, FRAMES, SIZE, SIZE))
        frames += rng.normal(0, 6, (1, FRAMES, 1, 1))
        length = float(rng.uniform(1.5, 5))
        start, label = float(rng.uniform(0, STEPS - length)), int(
            rng.integers(2))
        segment = np.array([[start, start + length]], dtype=np.float32)
        at = (np.arange(FRAMES) / 2 - start) / length
        ramp = 40 * (at if label else 1 - at) + 10
        frames += np.where((at >= 0) & (at < 1), ramp, 0)[None, :, None, None]
        frames = frames.clip(0, 255)
        sample = ActionDataSample()
        sample.gt_instances = InstanceData(
            segments=torch.from_numpy(segment), labels=torch.tensor([label]))
        fps = 2.
        sample.set_metainfo(
            dict(
                video_name=f'video_{seed}',
                duration=FRAMES / fps,
                fps=fps,
                total_frames=FRAMES,
                window_start_frame=0,
                snippet_stride=2,
                offset_frames=0,
                window_size=STEPS,
                valid_steps=STEPS,
                video_segments=segment * 2 / fps,
                video_labels=np.array([label])))
        inputs = torch.from_numpy(frames).to(torch.uint8)[None]
        return dict(inputs=inputs, data_samples=sample)
