"""What a conversion did with every key, and whether it may be used."""
from dataclasses import dataclass, field
from typing import Dict, List

from mmblockdrop.utils.checkpoint import (KINDS, Shapes, State,
                                          StateDifference, compare_states)


@dataclass
class ConversionReport:
    """Account of a conversion.

    Args:
        source: The file that was read.
        layout: Which layout it has.
        renamed: Name in the file to our name, where they differ.
        filled: Our name to the reason, for entries that the file does not hold
            and that need none of its values.
        left_out: Name in the file to the reason why it is not used.
        dropped: Blocks that the file has lost.
        notes: Anything else a user should know.
        missing: Our names that the file should hold.
        unexpected: Names in the file that our model does not have.
        reshaped: Entries of another shape than expected.
        unusable: Entries that are no weights: integers, NaN or infinite.
    """
    source: str
    layout: str
    renamed: Dict[str, str] = field(default_factory=dict)
    filled: Dict[str, str] = field(default_factory=dict)
    left_out: Dict[str, str] = field(default_factory=dict)
    dropped: List[int] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    reshaped: List[str] = field(default_factory=list)
    unusable: List[str] = field(default_factory=list)

    @property
    def difference(self) -> StateDifference:
        """What does not fit."""
        return StateDifference(*(getattr(self, kind) for kind in KINDS))

    @property
    def fits(self) -> bool:
        """Whether nothing is missing, unexpected, reshaped or unusable."""
        return not self.difference

    def compare(self, expected: Shapes, found: State) -> None:
        """Note what is missing, unexpected, reshaped and unusable.

        Args:
            expected: Our names and the shapes of their values.
            found: Our names and the values of the file.
        """
        old = {new: name for name, new in self.renamed.items()}
        difference = compare_states(expected, found)
        self.missing = difference.missing
        self.unexpected = sorted(old.get(k, k) for k in difference.unexpected)
        self.reshaped = difference.reshaped
        self.unusable = difference.unusable

    def text(self) -> str:
        """The whole account, one key per line.

        Returns:
            For printing.
        """
        lines = [
            f'{self.source}: {self.layout}',
            f'  {len(self.renamed)} keys renamed'
        ]
        if self.dropped:
            lines.append(f'  blocks that the file has lost: {self.dropped}')
        lines += [f'  {note}' for note in self.notes]
        for title, reasons in (('filled in', self.filled), ('left out',
                                                            self.left_out)):
            lines += [f'  {title}: {k} ({why})' for k, why in reasons.items()]
        for title in KINDS:
            keys = getattr(self, title)
            lines.append(f'  {len(keys)} {title}')
            lines += [f'    {key}' for key in keys]
        return '\n'.join(lines)

    def check(self) -> None:
        """Reject a conversion that does not fit.

        Raises:
            ValueError: Lists the keys by name.
        """
        if not self.fits:
            raise ValueError(f'{self.source} ({self.layout}) does not fit: '
                             f'{self.difference.describe()}')
