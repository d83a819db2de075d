"""N4 against SimpleITK and n4ax: iterations a level, the log field in the mask, and time.

Agreement is with SimpleITK on 8 threads: ITK sums the spline's lattice in single precision, over all voxels on one
thread and over an eighth of them on 8, and what the long sums lose (up to 1e-3 in the field, where a level ends an
iteration earlier or later) is gone at 8. Time is that of one thread.

`python n4.py` prints the numbers stored in src/imaging/n4/agreement.rs.
"""
import importlib.util

import numpy as np
import SimpleITK as sitk

from work import SIZES, agreement, cpu_ms, equal, head, real_images, scaled, speed as speed_row, threads

AGREE_THREADS = 8


def case(what, shape):
    """Image and mask of a case of the tests."""
    image, mask = phantom(*shape)
    if what == "Odd":  # zeros and negatives in the mask
        image.flat[::501] = 0
        image.flat[250::501] = -3
    if what == "FirstLeast":
        image.flat[np.flatnonzero(mask)[0]] = 20
    return image, mask


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


def confidence(shape):
    """Weights that fall towards the far corner; zero in some places, below zero in others."""
    z, y, x = np.indices(shape)
    weights = np.where((x + y) % 13 == 0, -1, 1 / (1 + 0.02 * (x + y + z)))
    return np.where((x + 2 * y + 3 * z) % 11 == 0, 0, weights).astype("f4")


# What, shape, spacing, iterations, shrink, convergence, and what differs from the defaults.
CASES = [
    ("Plain", (40, 31, 20), (1, 1, 3), [20], 1, 0.0, {}),
    ("Plain", (40, 31, 20), (1, 1, 3), [50, 50, 50, 50], 1, 1e-3, {}),
    ("Plain", (144, 136, 20), (1, 1, 5), [50, 50], 1, 1e-3, {}),
    ("Odd", (48, 40, 20), (1, 1, 3), [20, 20], 1, 0.0, {}),
    ("FirstLeast", (40, 31, 20), (1, 1, 3), [20, 5], 1, 0.0, {}),
    ("Plain", (160, 150, 2), (1, 1, 3), [20, 20], 1, 0.0, {}),
    ("Plain", (128, 120, 1), (1, 1, 1), [30, 20], 1, 0.0, {}),
    ("Plain", (128, 120, 12), (1, 1, 5), [10, 10, 10, 10], 4, 1e-3, {}),
    ("Plain", (96, 90, 40), (2, 2, 2), [20, 20], 2, 0.0, {}),
    ("Plain", (64, 60, 16), (1, 1, 4), [15, 10], 1, 0.0,
     {"control_points": [6, 5, 4], "bins": 120, "wiener_noise": 0.05, "fwhm": 0.25}),
]


WEIGHTED = ("Plain", (48, 40, 20))


def factors(shape, spacing, shrink):
    """Voxels left out along x, y, z, as src/imaging/n4/shrink.rs has it; `shape` is (x, y, z)."""
    along_z = int(shrink * min(spacing[:2]) / spacing[2] * (1 + 1e-3))
    return [max(1, min(f, n // 4)) for f, n in zip((shrink, shrink, along_z), shape)]


def itk(image, mask, spacing, iterations, shrink, convergence, options=None):
    """ITK's log field at every voxel and the iterations it did at each level.

    ITK gets no spacing: N4 looks at indices alone, and where the middle of the image falls between two voxels, ITK's
    shrink filter takes the one or the other by how origin and spacing happen to round.
    """
    options = options or {}
    by = factors(image.shape[::-1], spacing, shrink)
    arrays = [image, mask.astype("u1")]
    if image.shape[0] == 1:
        arrays, by = [a[0] for a in arrays], by[:2]
    volumes = [sitk.GetImageFromArray(a) for a in arrays]
    f = sitk.N4BiasFieldCorrectionImageFilter()
    f.SetMaximumNumberOfIterations(iterations)
    f.SetConvergenceThreshold(convergence)
    f.SetNumberOfHistogramBins(options.get("bins", 200))
    f.SetWienerFilterNoise(options.get("wiener_noise", 0.01))
    f.SetBiasFieldFullWidthAtHalfMaximum(options.get("fwhm", 0.15))
    if "control_points" in options:
        f.SetNumberOfControlPoints(options["control_points"][: len(by)])
    done = [0] * len(iterations)

    def count():
        done[f.GetCurrentLevel()] += 1

    f.AddCommand(sitk.sitkIterationEvent, count)
    f.Execute(*(volumes if shrink == 1 else [sitk.Shrink(v, by) for v in volumes]))
    field = sitk.GetArrayFromImage(f.GetLogBiasFieldAsImage(volumes[0]))
    return field.reshape(image.shape), done


def weighted_itk(image, mask, weights):
    """ITK's log field in the mask after [50] with confidence weights, which SimpleITK does not pass on; or None."""
    if importlib.util.find_spec("itk") is None:
        return None
    import itk as whole_itk
    whole_itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(AGREE_THREADS)
    i, m, w = (whole_itk.image_from_array(a) for a in (image, mask, weights))
    f = whole_itk.N4BiasFieldCorrectionImageFilter[type(i), type(m), type(w)].New()
    f.SetInput(i)
    f.SetMaskImage(m)
    f.SetConfidenceImage(w)
    f.SetConvergenceThreshold(0.0)
    f.Update()
    with np.errstate(all="ignore"):
        return np.log(image / whole_itk.array_from_image(f.GetOutput()))


def ours(work, image, mask, affine, iterations, shrink, convergence, options=None, weights=None, repeats=0):
    parameters = {"iterations": iterations, "shrink": shrink, "convergence": convergence, **(options or {})}
    return work.run("n4", repeats, parameters, affine, image=image, mask=mask, weights=weights)


def compare(work, name, image, mask, affine, spacing, settings, options=None):
    iterations, shrink, convergence = settings
    found = ours(work, image, mask, affine, *settings, options)
    field, done = itk(image, mask, spacing, *settings, options)
    inside = mask > 0
    worst, limit = np.abs(found.images["out_field"] - field)[inside].max(), 5e-4 if convergence else 2e-5
    said = f"{name}, {iterations} shrink {shrink} convergence {convergence:g}"
    rows = [equal("n4", "SimpleITK", said + ": iterations", found.numbers["iterations"], done)]
    note = ""
    if worst > limit:
        # Few voxels a control point: then ITK's own field depends on its number of threads, and one of them must be ours.
        others = [itk_on(n, image, mask, spacing, settings, options) for n in (1, 2, 4)]
        spread = max(np.abs(a - b)[inside].max() for a in [field, *others] for b in others)
        worst = min(np.abs(found.images["out_field"] - other)[inside].max() for other in [field, *others])
        note = f"ITK on 1, 2, 4 and 8 threads: {spread:.1e} apart"
    return [*rows, agreement("n4", "SimpleITK", said + ": log field", worst, limit, theirs=note)]


def itk_on(n, image, mask, spacing, settings, options):
    threads(n)
    field, _ = itk(image, mask, spacing, *settings, options)
    threads(AGREE_THREADS)
    return field


def agree(work):
    threads(AGREE_THREADS)
    rows = []
    image, mask = case(*WEIGHTED)
    weights = confidence(image.shape)
    field = weighted_itk(image, mask, weights)
    if field is not None:
        found = ours(work, image, mask, None, [50], 1, 0.0, weights=weights)
        worst = np.abs(found.images["out_field"] - field)[mask > 0].max()
        rows.append(agreement("n4", "ITK", "Plain 48×40×20, [50], confidence weights: log field", worst, 2e-5))
    for what, shape, spacing, *settings, options in CASES:
        image, mask = case(what, shape)
        name = f"{what} {'×'.join(map(str, shape))}" + (f" {options}" if options else "")
        rows += compare(work, name, image, mask, scaled(*spacing), spacing, settings, options)
    for name, image, affine in real_images(work):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        mask = sitk.GetArrayFromImage(sitk.OtsuThreshold(sitk.GetImageFromArray(image), 0, 1, 200))
        many = [([50] * 4, 1, 1e-3)] if mask.sum() < 300_000 else [([50], 1, 1e-3)]
        for settings in [([10], 1, 0.0), ([10] * 4, 4, 1e-3), ([50] * 4, 4, 1e-3), ([20, 20], 2, 0.0), *many]:
            rows += compare(work, name, image, mask, affine, spacing, settings)
    return rows


def speed(work):
    threads(1)
    rows = []
    for name, (shape, spacing) in SIZES.items():
        image, mask = head(shape)
        for iterations, shrink, least in (([10], 1, 400), ([50] * 4, 1, 400), ([10], 4, 100), ([50] * 4, 4, 100)):
            settings = iterations, shrink, 1e-3
            found = ours(work, image, mask, scaled(*spacing), *settings, repeats=work.repeats)
            theirs = cpu_ms(lambda: itk(image, mask, spacing, *settings), 1 if shrink == 1 else 3)
            rows.append(speed_row("n4", "SimpleITK, 1 thread", f"{name}, {iterations} shrink {shrink}", found.cpu_ms, theirs,
                                  least, *work_of(image, mask, shape, spacing, shrink, sum(found.numbers["iterations"]))))
        rows += against_n4ax(work, name, image, mask, spacing)
    return rows


def work_of(image, mask, shape, spacing, shrink, iterations):
    """Bytes that must move and float operations that must be done.

    An iteration reads and writes, per masked voxel, log intensity, field and corrected intensity from the last cache (4
    reads and 2 writes of 4 bytes); beside it stand the image, mask, field and output once. Operations: histogram 6,
    expectation and residual 8, fit 8, evaluation 7, exponential 15, variation 5, update and extremes 3.
    """
    by = factors(shape, spacing, shrink)
    masked = int(mask[:: by[2], :: by[1], :: by[0]].sum())
    return 24 * masked * iterations + 13 * image.size, 52 * masked * iterations + 24 * image.size


def against_n4ax(work, name, image, mask, spacing):
    if importlib.util.find_spec("n4ax") is None:
        return []
    import n4ax
    iterations = [10] * 4
    found = ours(work, image, mask, scaled(*spacing), iterations, 1, 0.0, repeats=work.repeats)
    array = np.ascontiguousarray(image.T)

    def theirs():
        np.asarray(n4ax.n4(array, mask=mask.T > 0, iters=tuple(iterations), over_relax=1.0))

    theirs()  # JAX compiles
    return [speed_row("n4", "n4ax, JAX on CPU", f"{name}, {iterations} shrink 1", found.cpu_ms, cpu_ms(theirs, 3), 5)]


def numbers():
    """For every case of the tests: iterations a level, and the log field at 8 voxels."""
    threads(AGREE_THREADS)
    for what, shape, spacing, iterations, shrink, convergence, options in CASES:
        image, mask = case(what, shape)
        field, done = itk(image, mask, spacing, iterations, shrink, convergence, options)
        print(f"{what} {shape} {iterations} shrink {shrink} convergence {convergence} {options}: done {done}")
        print("   ", at_eight(field, mask))
    image, mask = case(*WEIGHTED)
    field = weighted_itk(image, mask, confidence(image.shape))
    print(f"{WEIGHTED} [50] with weights:", field if field is None else at_eight(field, mask))


def at_eight(field, mask):
    inside = np.flatnonzero(mask)
    at = [int(inside[(2 * k + 1) * len(inside) // 16]) for k in range(8)]
    return "[" + ", ".join(f"({i}, {field.flat[i]:.7f})" for i in at) + "]"


if __name__ == "__main__":
    numbers()
