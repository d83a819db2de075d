"""Numbers behind the tests of gaussian, otsu, components, morphology and normalize, and the peers' speed.

pip install numpy scipy scikit-image SimpleITK; then `python smoothing_reference.py` prints the numbers and
`python smoothing_reference.py speed` times the same operations on a 256 x 256 x 25 volume, one thread.
"""
import sys
import time

import numpy as np
import scipy.ndimage as nd
import SimpleITK as sitk
import skimage.filters


def gaussian():
    n = (5, 9, 11)  # z, y, x
    v = (np.arange(np.prod(n)) * 7919 % 1009).astype("f4").reshape(n)
    b = nd.gaussian_filter(v.astype("f8"), 2.0 / np.array([4.0, 1.5, 1.0]), mode="nearest", truncate=4)
    for at in ((0, 0, 0), (2, 4, 5), (4, 8, 10), (1, 0, 7), (3, 6, 1)):
        print("gaussian", at, round(float(b[at]), 4))


def otsu():
    i = np.arange(4000)
    spread = (i * 7919 % 1009) / 1009 + (i * 104729 % 997) / 997
    v = np.where(i % 4 == 0, 80 + 20 * spread, 10 + 20 * spread).astype("f4")
    f = sitk.OtsuThresholdImageFilter()
    f.SetNumberOfHistogramBins(128)
    f.Execute(sitk.GetImageFromArray(v.reshape(40, 100)))
    print("otsu SimpleITK 128 bins", f.GetThreshold())
    print("otsu scikit-image 256 bins", skimage.filters.threshold_otsu(v, nbins=256))


def components():
    i = np.arange(6 * 9 * 11)
    m = ((i * i * 7 + i * 104729) % 1009 < 260).reshape(6, 9, 11)
    for name, rank in (("six", 1), ("eighteen", 2), ("twenty_six", 3)):
        labels, count = nd.label(m, nd.generate_binary_structure(3, rank))
        sizes = np.bincount(labels.ravel())[1:]
        print("components", name, count, sizes.max(), int((labels.ravel().astype("i8") * (i % 97)).sum()))
    dense = ((i * i * 7 + i * 104729) % 1009 < 700).reshape(6, 9, 11)
    print("holes filled 3-D", int((nd.binary_fill_holes(dense) ^ dense).sum()))
    print("holes filled by slice", int(sum((nd.binary_fill_holes(s) ^ s).sum() for s in dense)))


def speed():
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    rng = np.random.default_rng(7)
    z, y, x = np.mgrid[-1:1:25j, -1:1:256j, -1:1:256j]
    head = (x / 0.7) ** 2 + (y / 0.85) ** 2 + (z / 1.2) ** 2 < 1
    v = np.abs(np.where(head, 300 + 60 * np.sin(9 * x) * np.cos(7 * y), 8) + rng.normal(0, 6, head.shape)).astype("f4")
    image = sitk.GetImageFromArray(v)
    image.SetSpacing((1, 1, 5))
    mask = sitk.GetImageFromArray((v > 100).astype("u1"))

    def ms(name, call, repeat=5):
        best = min((lambda t: (call(), time.process_time() - t)[1])(time.process_time()) for _ in range(repeat))
        print(f"{name}: {best * 1e3:.2f} ms")

    ms("SimpleITK DiscreteGaussian 2 mm", lambda: sitk.DiscreteGaussian(image, 4.0, 32, 0.01, True))
    ms("SimpleITK SmoothingRecursiveGaussian 2 mm", lambda: sitk.SmoothingRecursiveGaussian(image, 2.0))
    ms("scipy gaussian_filter 2 mm", lambda: nd.gaussian_filter(v, (0.4, 2, 2), mode="nearest"))
    ms("SimpleITK OtsuThreshold 128 bins", lambda: sitk.OtsuThreshold(image, 0, 1, 128))
    ms("SimpleITK ConnectedComponent 26", lambda: sitk.ConnectedComponent(mask, True))
    ms("scipy label 26", lambda: nd.label(v > 100, np.ones((3, 3, 3))))
    ms("SimpleITK BinaryFillhole", lambda: sitk.BinaryFillhole(mask))
    ms("scipy binary_fill_holes", lambda: nd.binary_fill_holes(v > 100))


if sys.argv[1:] == ["speed"]:
    speed()
else:
    gaussian()
    otsu()
    components()
