"""Ridge regression of what is missing in a stream, from sums over tokens."""
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mmblockdrop.structures.time_grid import valid_share

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from .places import agreed

#: One of so many stretches of every window is held out.
STRETCHES = 10
#: Tokens that are added up at once, so that float64 copies stay small.
CHUNK = 8192
#: Place of a sample that another process has as well; it does not count.
REPEATED = -1


def with_places(batches: Any) -> Iterator[Tuple[Any, List[int]]]:
    """Walk through batches with the place of each sample in the data.

    Where a sampler shares the samples out to several processes, one by one,
    places are those of the whole, so nothing depends on how many there are.

    Args:
        batches: A loader, or anything that can be walked.

    Yields:
        A batch, and a place for each of its samples, or one for all of a batch
        without ``data_samples``.
    """
    sampler = getattr(batches, 'sampler', None)
    rank = getattr(sampler, 'rank', 0)
    world = getattr(sampler, 'world_size',
                    getattr(sampler, 'num_replicas', 1))
    size = len(batches.dataset) if world > 1 else None
    count = 0
    for batch in batches:
        samples = samples_of(batch)
        places = [
            count + i * world + rank for i in range(len(samples or [0]))
        ]
        count += len(places) * world
        yield batch, [
            REPEATED if size is not None and place >= size else place
            for place in places
        ]


def samples_of(batch: Any) -> Optional[Sequence[Any]]:
    """Take the samples out of a batch; None if it has none."""
    return (batch.get('data_samples') or None) if isinstance(
        batch, dict) else None


def held_out(tokens: int, batch: Any,
             places: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Say which tokens show real video, and which of them are held out.

    Tokens of a window stand together and follow time, as those of clips do.

    Args:
        tokens: Tokens of a batch of windows.
        batch: The batch; padding is known by ``valid_steps`` of its samples.
        places: Places of its samples, so that the stretches move.

    Returns:
        Two masks, bool [tokens]: real and not held out, real and held out.
    """
    samples = samples_of(batch)
    windows = len(places) if not tokens % len(places) else 1
    place = torch.arange(tokens // windows) / (tokens // windows)
    stretch = (place * STRETCHES).long()
    real, held = [], []
    for index in range(windows):
        share = 1.
        if samples is not None and windows == len(samples):
            share = valid_share(samples[index])
        counts = places[index] != REPEATED
        real.append((place < share) & counts)
        held.append((stretch + places[index]) % STRETCHES == 0)
    masks = torch.cat(real), torch.cat(held)
    return masks[0] & ~masks[1], masks[0] & masks[1]


class Solution(NamedTuple):
    """A regression that was solved.

    Attributes:
        change: What h is multiplied by, [d, C], or [d + 1, C] with bias; None
            if no ridge lowers the held-out error.
        ridge: The ridge with the least held-out error.
        before: Held-out error without it, as a share of the variance of the
            teacher's stream.
        after: With it.
        tokens: Tokens of all processes, held-out ones included.
    """
    change: Optional[Tensor]
    ridge: Optional[float]
    before: float
    after: float
    tokens: int


class Sums:
    """What a ridge regression needs, added up over batches and processes.

    All in float64, twice: over the tokens that are fitted, and over those
    held out.

    Args:
        widths: Columns of h that belong together, such as those of a layer;
            each group has a ridge of its own scale.
        has_bias: Whether there is a constant, in the last column.
        channels: Channels C of the stream.
        device: Where the sums are.
    """

    def __init__(self, widths: Sequence[int], has_bias: bool, channels: int,
                 device: torch.device) -> None:
        self.widths, self.has_bias = list(widths), has_bias
        columns = sum(widths) + has_bias
        # Products of h with h and with what is missing; tokens, squares of
        # what is missing, of the stream and their sums.
        self.square, self.cross, self.other = (
            torch.zeros((2, *shape), dtype=torch.float64, device=device)
            for shape in ((columns, columns), (columns, channels),
                          (3 + channels, )))
        self.reduced = False

    @staticmethod
    def memory(columns: int, channels: int) -> int:
        """Bytes of the sums of a fit.

        Args:
            columns: Columns of h, with that of the bias.
            channels: Channels of the stream.

        Returns:
            Their size.
        """
        return 2 * 8 * columns * (columns + channels)

    def add(self, hidden: Tensor, stream: Tensor, wanted: Tensor,
            masks: Sequence[Tensor]) -> None:
        """Add tokens.

        Args:
            hidden: h, [tokens, d], without the column of the bias.
            stream: The student's, [tokens, C].
            wanted: The teacher's, [tokens, C].
            masks: Which are fitted and which held out, bool [tokens] each.
        """
        for part, mask in enumerate(masks):
            for chosen in mask.nonzero()[:, 0].to(hidden.device).split(CHUNK):
                h, x, y = (
                    t[chosen].double() for t in (hidden, stream, wanted))
                if self.has_bias:
                    h = torch.cat([h, h.new_ones(len(h), 1)], 1)
                missing = y - x
                self.square[part] += h.T @ h
                self.cross[part] += h.T @ missing
                self.other[part] += torch.cat([
                    torch.stack([
                        y.new_tensor(len(y)),
                        missing.square().sum(),
                        y.square().sum()
                    ]),
                    y.sum(0)
                ])

    def solve(self, ridges: Sequence[float],
              only_last: bool = False) -> Solution:
        """Find the change that lowers the held-out error most.

        Args:
            ridges: Strengths to choose from, as shares of the mean squared
                entry of a group of columns.
            only_last: Use the columns of the last group and the bias alone.

        Returns:
            The solution, the same in every process.
        """
        if not self.reduced:
            for sums in (self.square, self.cross, self.other):
                all_reduce(sums)
            self.reduced = True
        first = sum(self.widths[:-1]) if only_last else 0
        widths = self.widths[-1:] if only_last else self.widths
        square, cross = self.square[:, first:, first:], self.cross[:, first:]
        count, error, squares = self.other[1, :3].tolist()
        spread = squares - (self.other[1, 3:].square().sum() /
                            max(count, 1)).item()
        best, change, ridge = error, None, None
        for candidate in ridges:
            solution = self._ridge(square[0], cross[0], widths, candidate)
            rest = error - 2 * (solution * cross[1]).sum() + (
                solution * (square[1] @ solution)).sum()
            found = max(rest.item(), 0.)
            if found < best:  # not so where it is NaN
                best, change, ridge = found, solution, candidate
        spread = max(spread, 1e-30)
        # Processors of other kinds may round otherwise.
        change, *rest = agreed([
            None if change is None else change.cpu(), ridge, error / spread,
            best / spread,
            int(self.other[:, 0].sum())
        ])
        return Solution(
            None if change is None else change.to(square.device), *rest)

    def _ridge(self, square: Tensor, cross: Tensor, widths: Sequence[int],
               ridge: float) -> Tensor:
        """Ridge regression on the tokens that are not held out."""
        square = square.clone()
        diagonal = square.diagonal()
        for group in diagonal[:sum(widths)].split(list(widths)):
            group += ridge * group.mean().clamp(min=1e-30)
        if self.has_bias:
            diagonal[-1:] += 1e-9 * diagonal[-1:].clamp(min=1.)
        return torch.linalg.solve(square, cross)
