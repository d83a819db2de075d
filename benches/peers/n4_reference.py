"""SimpleITK's N4 on phantoms that `src/imaging/n4/agreement.rs` builds by the same formula, and its speed.

pip install numpy SimpleITK; then
  python n4_reference.py          prints, for every case of the tests, iterations a level and the log field at 8 voxels
  python n4_reference.py speed    times one thread at 256 x 256 x 25, full resolution, [10], as benches/kernels.rs does
Made with SimpleITK 2.5.7 (ITK 5.4), one thread.
"""
import sys
import time

import numpy as np
import SimpleITK as sitk


def phantom(nx, ny, nz):
    """An ellipsoid of wavy tissue under a smooth field, with noise from an integer hash; arrays [z, y, x]."""
    def axis(n):
        return np.array([-1 + 2 * i / (n - 1) if n > 1 else 0.0 for i in range(n)])
    z, y, x = np.meshgrid(axis(nz), axis(ny), axis(nx), indexing="ij")
    mask = (x / 0.85) ** 2 + (y / 0.95) ** 2 + (z / 1.1) ** 2 < 1
    h = np.arange(mask.size, dtype="u8") * 2654435761 & 0xFFFFFFFF
    h = (h ^ h >> 15) * 2246822519 & 0xFFFFFFFF
    h = h ^ h >> 13
    noise = (h / 2**32 - 0.5).reshape(mask.shape)
    tissue = np.where(mask, 300 + 60 * np.sin(9 * x) * np.cos(7 * y), 8)
    return (tissue * np.exp(0.3 * x - 0.2 * y * y) + 20 * noise).astype("f4"), mask.astype("u1")


def change(image, mask, what):
    if what == "Odd":  # zeros and negatives in the mask
        image.flat[::501] = 0
        image.flat[250::501] = -3
    if what == "FirstLeast":
        image.flat[np.flatnonzero(mask)[0]] = 20


CASES = [
    ("Plain", (40, 31, 20), (1, 1, 3), [20], 1, 0.0),
    ("Plain", (40, 31, 20), (1, 1, 3), [50, 50, 50, 50], 1, 1e-3),
    ("Plain", (144, 136, 20), (1, 1, 5), [50, 50], 1, 1e-3),
    ("Odd", (48, 40, 20), (1, 1, 3), [20, 20], 1, 0.0),
    ("FirstLeast", (40, 31, 20), (1, 1, 3), [20, 5], 1, 0.0),
    ("Plain", (160, 150, 2), (1, 1, 3), [20, 20], 1, 0.0),
    ("Plain", (128, 120, 1), (1, 1, 1), [30, 20], 1, 0.0),
    ("Plain", (128, 120, 12), (1, 1, 5), [10, 10, 10, 10], 4, 1e-3),
]


def correct(image, mask, spacing, iterations, shrink, convergence):
    if image.shape[0] == 1:
        image, mask, spacing = image[0], mask[0], spacing[:2]
    i, m = sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask)
    i.SetSpacing(spacing)
    m.SetSpacing(spacing)
    factors = [shrink, shrink, 1][: i.GetDimension()]
    si, sm = sitk.Shrink(i, factors), sitk.Shrink(m, factors)
    f = sitk.N4BiasFieldCorrectionImageFilter()
    f.SetMaximumNumberOfIterations(iterations)
    f.SetConvergenceThreshold(convergence)
    done = [0] * len(iterations)

    def count():
        done[f.GetCurrentLevel()] += 1

    f.AddCommand(sitk.sitkIterationEvent, count)
    f.Execute(si, sm)
    return sitk.GetArrayFromImage(f.GetLogBiasFieldAsImage(i)), done


def numbers():
    for what, shape, spacing, iterations, shrink, convergence in CASES:
        image, mask = phantom(*shape)
        change(image, mask, what)
        field, done = correct(image, mask, spacing, iterations, shrink, convergence)
        inside = np.flatnonzero(mask)
        at = [int(inside[(2 * k + 1) * len(inside) // 16]) for k in range(8)]
        values = ", ".join(f"({i}, {field.flat[i]:.7f})" for i in at)
        print(f"{what} {shape} {iterations} shrink {shrink} convergence {convergence}: masked {len(inside)}, done {done}")
        print(f"    [{values}]")


def speed():
    z, y, x = np.mgrid[-1:1:25j, -1:1:256j, -1:1:256j]
    rng = np.random.default_rng(7)
    mask = (x / 0.7) ** 2 + (y / 0.85) ** 2 + (z / 1.2) ** 2 < 1
    image = np.where(mask, 300 + 60 * np.sin(9 * x) * np.cos(7 * y), 8) * np.exp(0.3 * x - 0.2 * y * y)
    image = np.abs(image + rng.normal(0, 6, mask.shape)).astype("f4")
    start = time.process_time()
    correct(image, mask.astype("u1"), (1, 1, 5), [10], 1, 0.0)
    print(f"SimpleITK N4, 256 x 256 x 25, {int(mask.sum())} masked voxels, [10]: {time.process_time() - start:.2f} s CPU")


sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
speed() if sys.argv[1:] == ["speed"] else numbers()
