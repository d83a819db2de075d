"""Skull strip and normalisation against SimpleITK, SciPy, scikit-image and NumPy.

`python smoothing.py` prints the numbers stored in the tests of gaussian, otsu, components and morphology.
"""
import numpy as np
import scipy.ndimage as nd
import SimpleITK as sitk
import skimage.filters

from work import SIZES, agreement, cpu_ms, equal, head, real_images, scaled, speed as speed_row, threads, to_itk

BLUR_MM = 2.0
# Bins and convention that each tool has by default.
ITK = {"bins": 128, "convention": "right_edge"}
SCIPY = {"bins": 256, "convention": "centre"}


def ours(work, image, affine, defaults, whole=False, repeats=0):
    parameters = {"blur_mm": BLUR_MM, **defaults, "largest_component": whole, "fill_holes": whole}
    return work.run("skull_strip", repeats, parameters, affine, image=image)


def itk_gaussian(image):
    """The Gaussian of the definition: three convolutions with its sampled values. Exact, and too slow to be used."""
    for axis, spacing in enumerate(image.GetSpacing()):
        radius = int(4 * BLUR_MM / spacing + 0.5)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) * spacing / BLUR_MM) ** 2)
        shape = [1, 1, 1]
        shape[2 - axis] = weights.size
        kernel = sitk.GetImageFromArray((weights / weights.sum()).reshape(shape))
        image = sitk.Convolution(sitk.Cast(image, sitk.sitkFloat64), kernel)
    return image


def itk_strip(image, whole=False, blur=lambda image: sitk.SmoothingRecursiveGaussian(image, BLUR_MM)):
    """Threshold, mask and stripped image of an ITK image, with SimpleITK."""
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(ITK["bins"])
    otsu.SetInsideValue(0)
    otsu.SetOutsideValue(1)
    mask = otsu.Execute(blur(image))
    if whole:
        mask = sitk.RelabelComponent(sitk.ConnectedComponent(mask, True), sortByObjectSize=True) == 1
        mask = sitk.BinaryFillhole(mask, False)
    return otsu.GetThreshold(), mask, sitk.Mask(image, mask)


def scipy_strip(image, spacing, whole=False):
    """Threshold, mask and stripped image of an array [z, y, x], with SciPy and scikit-image."""
    blurred = nd.gaussian_filter(image, BLUR_MM / np.asarray(spacing)[::-1], mode="nearest", truncate=4)
    threshold = skimage.filters.threshold_otsu(blurred, nbins=SCIPY["bins"])
    mask = blurred > threshold
    if whole:
        labels, _ = nd.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = nd.binary_fill_holes(labels == sizes.argmax())
    return threshold, mask, np.where(mask, image, 0)


def dice_loss(a, b):
    a, b = a > 0, b > 0
    return 1 - 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def normalize(image, mask, peak=150, clip=255):
    """The study's normalisation, with the histogram of src/imaging/normalize.rs."""
    v = image[(mask > 0) & (image > 0)].astype("f8")
    top = np.percentile(v, 99, method="lower")
    counts, edges = np.histogram(v, 128, (0, top))
    found = (edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2
    return found, np.clip(image * np.float32(peak / found), 0, clip)


def volumes(work):
    for name, (shape, spacing) in SIZES.items():
        image, _ = head(shape)
        yield name, image, scaled(*spacing)
    yield from real_images(work)


def agree(work):
    threads(1)
    rows = []
    for name, image, affine in volumes(work):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        scipy_blur = nd.gaussian_filter(image.astype("f8"), BLUR_MM / spacing[::-1], mode="nearest", truncate=4)
        blurred = work.run("blur", 0, {"blur_mm": BLUR_MM, **ITK, "largest_component": False, "fill_holes": False},
                           affine, image=image).images["out"]
        worst = np.abs(blurred - scipy_blur).max() / np.abs(scipy_blur).max()
        rows.append(agreement("blur", "SciPy", f"{name}, {BLUR_MM} mm: largest difference over maximum", worst, 1e-6))
        extent = np.ptp(scipy_blur)
        for whole in (False, True):
            said = f"{name}{', largest component, holes filled' if whole else ''}"
            threshold, mask, _ = scipy_strip(image.astype("f8"), spacing, whole)
            rows += strip_rows(work, image, affine, SCIPY, whole, "SciPy + scikit-image", said, threshold, mask, extent)
            volume = to_itk(image, affine)
            threshold, mask, _ = itk_strip(volume, whole, itk_gaussian)
            mask = sitk.GetArrayFromImage(mask)
            rows += strip_rows(work, image, affine, ITK, whole, "SimpleITK", said, threshold, mask, extent)
            # Its recursive filter is a Gaussian within some 1e-3 only, so voxels at the threshold change sides.
            threshold, mask, _ = itk_strip(volume, whole)
            mask = sitk.GetArrayFromImage(mask)
            rows += strip_rows(work, image, affine, ITK, whole, "SimpleITK, recursive", said, threshold, mask, extent, 2e-3)
        rows += normalize_rows(work, name, image, affine)
    return rows


def strip_rows(work, image, affine, defaults, whole, rival, said, threshold, mask, extent, most=1e-4):
    found = ours(work, image, affine, defaults, whole)
    bins = abs(found.numbers["threshold"] - threshold) / (extent / defaults["bins"])
    return [
        agreement("otsu", rival, f"{said}: threshold, in bins", bins, 1, "", found.numbers["threshold"], threshold),
        agreement("skull_strip", rival, f"{said}: 1 − Dice", dice_loss(found.images["out_mask"], mask), most),
    ]


def normalize_rows(work, name, image, affine):
    mask = image > skimage.filters.threshold_otsu(image)
    rows = []
    for scope in ("volume", "slice"):
        found = work.run("normalize", 0, {"peak": 150, "clip": 255, "scope": scope}, affine, image=image, mask=mask)
        parts = [(image, mask)] if scope == "volume" else list(zip(image, mask))
        theirs = [normalize(i, m) if (m & (i > 0)).any() else (None, i) for i, m in parts]
        ours_by_part = found.images["out"].reshape(len(parts), *parts[0][0].shape)
        peaks = [p and p["peak"] for p in found.numbers["parts"]]
        worst = max(abs(a - b) / b for a, (b, _) in zip(peaks, theirs) if b)
        moved = max(np.abs(a - b).max() / 255 for a, (p, b) in zip(ours_by_part, theirs) if p)
        same = sum((a is None) == (b is None) for a, (b, _) in zip(peaks, theirs))
        rows += [
            equal("normalize", "NumPy", f"{name}, {scope}: parts with a peak", same, len(parts)),
            agreement("normalize", "NumPy", f"{name}, {scope}: peak, relative", worst, 1e-6),
            agreement("normalize", "NumPy", f"{name}, {scope}: image, of 255", moved, 1e-6),
        ]
    return rows


def speed(work):
    threads(1)
    rows = []
    for name, (shape, spacing) in SIZES.items():
        image, mask = head(shape)
        affine, volume, n = scaled(*spacing), to_itk(image, scaled(*spacing)), image.size
        taps = sum(2 * int(4 * BLUR_MM / s + 0.5) + 1 for s in spacing)
        for whole in (False, True):
            what = f"{name}{', largest component, holes filled' if whole else ''}"
            # Image in, blurred image written and read, mask written and read, image written; the blur's products and sums.
            floor = {"bytes": 18 * n, "operations": (1.5 * taps + 4) * n}
            mine = ours(work, image, affine, ITK, whole, work.repeats).cpu_ms
            theirs = cpu_ms(lambda: itk_strip(volume, whole), 5)
            rows.append(speed_row("skull_strip", "SimpleITK", what, mine, theirs, 10, **floor))
            mine = ours(work, image, affine, SCIPY, whole, work.repeats).cpu_ms
            theirs = cpu_ms(lambda: scipy_strip(image, spacing, whole), 5)
            rows.append(speed_row("skull_strip", "SciPy + scikit-image", what, mine, theirs, 5, **floor))
        mine = work.run("normalize", work.repeats, {"peak": 150, "clip": 255, "scope": "volume"}, affine, image=image, mask=mask)
        # The image twice in, once out, and the mask.
        rows.append(speed_row("normalize", "NumPy", name, mine.cpu_ms, cpu_ms(lambda: normalize(image, mask)), 3, bytes=13 * n))
    return rows


def gaussian_numbers():
    n = (5, 9, 11)  # z, y, x
    v = (np.arange(np.prod(n)) * 7919 % 1009).astype("f4").reshape(n)
    b = nd.gaussian_filter(v.astype("f8"), 2.0 / np.array([4.0, 1.5, 1.0]), mode="nearest", truncate=4)
    for at in ((0, 0, 0), (2, 4, 5), (4, 8, 10), (1, 0, 7), (3, 6, 1)):
        print("gaussian", at, round(float(b[at]), 4))


def otsu_numbers():
    i = np.arange(4000)
    spread = (i * 7919 % 1009) / 1009 + (i * 104729 % 997) / 997
    v = np.where(i % 4 == 0, 80 + 20 * spread, 10 + 20 * spread).astype("f4")
    f = sitk.OtsuThresholdImageFilter()
    f.SetNumberOfHistogramBins(128)
    f.Execute(sitk.GetImageFromArray(v.reshape(40, 100)))
    print("otsu SimpleITK 128 bins", f.GetThreshold())
    print("otsu scikit-image 256 bins", skimage.filters.threshold_otsu(v, nbins=256))


def component_numbers():
    i = np.arange(6 * 9 * 11)
    m = ((i * i * 7 + i * 104729) % 1009 < 260).reshape(6, 9, 11)
    for name, rank in (("six", 1), ("eighteen", 2), ("twenty_six", 3)):
        labels, count = nd.label(m, nd.generate_binary_structure(3, rank))
        sizes = np.bincount(labels.ravel())[1:]
        print("components", name, count, sizes.max(), int((labels.ravel().astype("i8") * (i % 97)).sum()))
    dense = ((i * i * 7 + i * 104729) % 1009 < 700).reshape(6, 9, 11)
    print("holes filled 3-D", int((nd.binary_fill_holes(dense) ^ dense).sum()))
    print("holes filled by slice", int(sum((nd.binary_fill_holes(s) ^ s).sum() for s in dense)))


if __name__ == "__main__":
    gaussian_numbers()
    otsu_numbers()
    component_numbers()
