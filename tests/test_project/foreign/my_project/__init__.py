"""Someone's project on mmaction2, as it is without us."""
import torch
from mmaction.registry import DATASETS, METRICS, MODELS
from mmaction.structures import ActionDataSample
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset


class ResidualConv(nn.Module):

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x):
        return x + self.act(self.conv(x))


@MODELS.register_module()
class FeatureEncoder(nn.Module):

    def __init__(self, in_channels, channels, num_blocks):
        super().__init__()
        self.stem = nn.Conv1d(in_channels, channels, 1)
        self.blocks = nn.ModuleList(
            ResidualConv(channels) for _ in range(num_blocks))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


@MODELS.register_module()
class ActionnessLocalizer(BaseModel):
    """Says for every step of a video whether something happens."""

    def __init__(self, backbone, channels):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.cls = nn.Conv1d(channels, 1, 1)
        self.loss_fn = nn.BCEWithLogitsLoss()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if not isinstance(inputs, torch.Tensor):
            inputs = torch.stack(inputs)
        logits = self.cls(self.backbone(inputs)).squeeze(1)
        if mode == 'loss':
            target = torch.stack([s.gt_actionness for s in data_samples])
            return dict(loss_actionness=self.loss_fn(logits, target))
        if mode == 'predict':
            for sample, score in zip(data_samples, logits.sigmoid()):
                sample.set_field(score, 'pred_actionness')
            return data_samples
        return logits


@DATASETS.register_module()
class FeatureFolder(Dataset):
    """Features in which actions stand out; a real one would read files."""

    metainfo = dict(classes=['action'])

    def __init__(self, videos, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.items = []
        for i in range(videos):
            actions = (torch.rand(16, generator=generator) > 0.5).float()
            features = torch.randn(6, 16, generator=generator) + actions
            self.items.append((f'video_{i}', features, actions))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        name, features, actions = self.items[index]
        sample = ActionDataSample(metainfo=dict(video_name=name))
        sample.set_field(actions, 'gt_actionness')
        return dict(inputs=features, data_samples=sample)


@METRICS.register_module()
class StepAccuracy(BaseMetric):
    default_prefix = 'steps'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            right = ((sample['pred_actionness'] > 0.5) ==
                     (sample['gt_actionness'] > 0.5))
            self.results.append(right.float().mean().item())

    def compute_metrics(self, results):
        return dict(accuracy=sum(results) / len(results))
