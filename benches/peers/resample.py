"""Resampling against SimpleITK: linear, nearest and cubic B-spline, onto grids of every kind, borders included."""
import numpy as np
import SimpleITK as sitk

from work import SIZES, agreement, cpu_ms, head, real_images, scaled, speed as speed_row, threads, to_itk

METHODS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "cubic": sitk.sitkBSpline}
FILL = -7.0


def rotation(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = [i for i in range(3) if i != axis]
    m = np.eye(4)
    m[a, a], m[a, b], m[b, a], m[b, b] = c, -s, s, c
    return m


def grids(shape, affine):
    """(name, shape (x, y, z), affine) of grids around an image; they all reach past its borders somewhere.

    Their centres are a hair off the image's, where nearest neighbours would be ties that rounding decides.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    centre = affine @ [*(np.array(shape) / 2 - 0.5 + [0.013, 0.021, 0.017]), 1]

    def about_centre(n, directions):
        m = directions.copy()
        m[:3, 3] = centre[:3] - m[:3, :3] @ (np.array(n) / 2 - 0.5)
        return m

    unit = affine.copy()
    unit[:3, 3] = 0
    coarse = tuple(int(n / 1.37) + 6 for n in shape)
    yield "coarser", coarse, about_centre(coarse, unit @ scaled(1.37, 1.29, 1.11))
    fine = tuple(n + 9 for n in shape)
    yield "finer", fine, about_centre(fine, unit @ scaled(0.83, 0.91, 0.97))
    turned = tuple(shape[i] for i in (1, 2, 0))
    yield "axes swapped and flipped", turned, about_centre(turned, unit @ np.eye(4)[:, [1, 2, 0, 3]] @ scaled(-1.05, 1.1, -0.95))
    oblique = rotation(0, 20) @ rotation(2, -35) @ scaled(*(spacing * [1.1, -0.9, 1.05]))
    yield "oblique", shape, about_centre(shape, oblique)


def itk(image, shape, affine, method):
    to = to_itk(np.zeros(shape[::-1], "f4"), affine)
    return sitk.Resample(image, to, sitk.Transform(), METHODS[method], FILL, sitk.sitkFloat32)


def volumes(work):
    image, _ = head((61, 53, 17))
    yield "phantom 61×53×17", image, np.array(rotation(1, 12) @ scaled(1, 1.2, 4.0))
    # Three slices: of two, ITK's spline reads past the end.
    image, _ = head((40, 30, 3))
    yield "phantom 40×30×3", image, scaled(2, 2, 6)
    yield from real_images(work)


def agree(work):
    rows = []
    for name, image, affine in volumes(work):
        affine = np.asarray(affine, "f4").astype("f8")
        extent = np.abs(image).max()
        for grid, shape, to in grids(image.shape[::-1], affine):
            to = np.asarray(to, "f4").astype("f8")
            for method in METHODS:
                found = work.run("resample", 0, {"interpolation": method, "fill": FILL}, None,
                                 image=(image, affine), to=(np.zeros(shape[::-1], "u1"), to)).images["out"]
                theirs = sitk.GetArrayFromImage(itk(to_itk(image, affine), shape, to, method))
                rows += compare(f"{name}, {grid}, {method}", found, theirs, extent, method)
    return rows


def compare(said, found, theirs, extent, method):
    """Values where both are inside, relative to the image's largest, and the share of voxels that only one holds inside.

    A nearest voxel may be the other one of two where an index rounds to a half; such voxels count in the share.
    """
    inside, theirs_inside = found != FILL, theirs != FILL
    both = inside & theirs_inside
    difference = np.abs(found - theirs)[both] / extent
    apart = (inside ^ theirs_inside).sum()
    if method == "nearest":
        apart, difference = apart + (difference > 1e-4).sum(), difference[difference <= 1e-4]
    return [
        agreement("resample", "SimpleITK", said + ": relative to the maximum", difference.max(initial=0), 1e-4),
        agreement("resample", "SimpleITK", said + ": share of other voxels", apart / found.size, 1e-4),
    ]


def speed(work):
    threads(1)
    rows = []
    for name, (shape, spacing) in SIZES.items():
        image, _ = head(shape)
        affine = scaled(*spacing)
        volume = to_itk(image, affine)
        for grid, to_shape, to in grids(shape, affine):
            if grid not in ("coarser", "oblique"):
                continue
            voxels = int(np.prod(to_shape))
            for method, operations in {"linear": 21, "nearest": 3, "cubic": 127 if grid == "oblique" else 30}.items():
                found = work.run("resample", work.repeats, {"interpolation": method, "fill": FILL}, None,
                                 image=(image, affine), to=(np.zeros(to_shape[::-1], "u1"), to))
                theirs = cpu_ms(lambda: itk(volume, to_shape, to, method), 3)
                rows.append(speed_row("resample", "SimpleITK", f"{name}, {grid}, {method}", found.cpu_ms, theirs, None,
                                      bytes=4 * (image.size + voxels), operations=operations * voxels))
    return rows


def cubic_numbers():
    """Those of the test of cubic resampling; the ramp and the grids are those of geometry.py's `resample_numbers`."""
    z, y, x = np.mgrid[:4, :5, :6]
    image = ((x * 7 + y * 13 + z * 29) % 31 + 0.5 * x - 0.25 * y * z).astype("f4")
    source = scaled(2, 2, 4)
    source[:3, 3] = -5, 3, 1
    finer = scaled(1.5, 2.5, 3)
    finer[:3, 3] = -6.1, 2.3, 0.2
    oblique = rotation(0, 20) @ rotation(2, -35) @ scaled(-1.7, 1.9, 2.2)
    oblique[:3, 3] = 4, -1, 2
    for name, shape, to in (("aligned", (8, 5, 6), finer), ("oblique", (7, 6, 5), oblique)):
        out = sitk.GetArrayFromImage(itk(to_itk(image, source), shape, to, "cubic"))
        print(name, out[1, 2].tolist(), out[3, 4].tolist(), out.sum(dtype="f8"))


if __name__ == "__main__":
    cubic_numbers()
