"""What N4's settings remove of a field with local structure, and in what time: the figures behind the default.

  make bench-defaults    (or: .venv-peers/bin/python benches/peers/defaults.py [--peers BINARY])

Tissue of two intensities in noise under exp(field); the field has bumps and hollows 30 to 50 mm wide beside a slope, as an
array of coils leaves it. Correlation is that of the found log field with the true one in the mask; the coefficient of variation
is that of the white matter, which a perfect correction brings to that of the noise alone.
"""
import argparse

import numpy as np

from run import build, keep_memory, table
from work import Work, scaled

SHAPE, SPACING = (192, 192, 27), (1.2, 1.2, 5.0)
SETTINGS = [([10], 1), ([10], 4), ([10] * 4, 1), ([10] * 4, 4), ([50] * 4, 4), ([50] * 4, 1)]


def case(seed=5):
    """Image, mask, true log field and white matter, as arrays [z, y, x]."""
    rng = np.random.default_rng(seed)
    z, y, x = (g.astype("f4") for g in np.mgrid[:SHAPE[2], :SHAPE[1], :SHAPE[0]])
    mm = [a * s - 0.5 * n * s for a, s, n in zip((x, y, z), SPACING, SHAPE)]
    brain = sum((a / r) ** 2 for a, r in zip(mm, (70, 90, 62))) < 1
    white = (np.sin(mm[0] / 9) * np.sin(mm[1] / 11) * np.cos(mm[2] / 13) > -0.1) & brain
    field = 0.0015 * mm[0]
    for _ in range(24):
        centre, width = rng.uniform(-1, 1, 3) * (70, 90, 62), rng.uniform(15, 25)
        field += rng.choice([-0.27, 0.27]) * np.exp(-sum((a - c) ** 2 for a, c in zip(mm, centre)) / (2 * width**2))
    tissue = np.where(white, 200, np.where(brain, 300, 0)).astype("f4")
    image = np.abs(tissue * np.exp(field) + rng.normal(0, 8, tissue.shape))
    return image.astype("f4"), brain.astype("u1"), field, white


def variation(values):
    return values.std() / values.mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers")
    asked = parser.parse_args()
    keep_memory()
    work = Work(asked.peers or build())
    image, mask, field, white = case()
    inside, rows = mask > 0, []
    for iterations, shrink in SETTINGS:
        found = work.run("n4", 5, {"iterations": iterations, "shrink": shrink}, scaled(*SPACING), image=image, mask=mask)
        same = np.corrcoef(found.images["out_field"][inside], field[inside])[0, 1]
        rows.append({"iterations": str(iterations), "shrink": shrink, "correlation": f"{same:.3f}",
                     "variation before": f"{variation(image[white]):.3f}",
                     "after": f"{variation(found.images['out'][white]):.3f}", "ms": f"{found.cpu_ms:.1f}"})
    table(rows, list(rows[0]))
    print(f"variation of white matter without a field: {variation((image / np.exp(field))[white]):.3f}")


if __name__ == "__main__":
    main()
