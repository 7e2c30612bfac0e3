"""Make the copy of AdaTAD's recorded numbers that every clone holds.

    python projects/recording/make_small_seeds.py FULL tests/data/golden_seeds

Nothing is recorded anew: of the encoder, the second picture size is left out.
"""
import argparse
import io
import lzma
from pathlib import Path

import torch


def main() -> None:
    """Copy and compress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('full', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ('adatad_adapter.pt', 'adatad_vit.pt'):
        content = torch.load(args.full / name, weights_only=True)
        if 'runs' in content:
            content['runs'] = content['runs'][:1]
        buffer = io.BytesIO()
        torch.save(content, buffer)
        packed = lzma.compress(buffer.getvalue(), preset=9)
        (args.out / f'{name}.xz').write_bytes(packed)
        print(f'{name}: {len(packed)} bytes')


if __name__ == '__main__':
    main()
