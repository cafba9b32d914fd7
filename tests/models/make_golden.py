"""Writes golden/*.npz, what transformers computes with the golden models: needs torch.

python tests/models/make_golden.py
"""

from pathlib import Path

import golden_models
import numpy as np


def main():
    folder = Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    for name in golden_models.CONFIGS:
        result = golden_models.reference(name)
        # Greedy tokens can be compared only where rounding does not choose them.
        assert result["margin"] > 1e-3, f"{name}: take another seed, the margin is too small"
        np.savez_compressed(folder / f"{name}.npz", **result)
        print(f"{name}: smallest margin {result['margin']:.4f}, greedy {result['greedy'][:8]}")


if __name__ == "__main__":
    main()
