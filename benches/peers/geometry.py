"""Masks against cc3d, SciPy, NumPy, MONAI and the definitions of the ISLES'22 evaluation: components, distances, scores.

`python geometry.py` prints the numbers stored in src/imaging/distance.rs, metrics.rs and resample.rs.
"""
import os
import warnings

import cc3d
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import ndimage as nd

from work import SIZES, agreement, cpu_ms, equal, scaled, speed as speed_row

NAMES = {6: "six", 18: "eighteen", 26: "twenty_six"}
LESIONS = "balls of 3 to 9 voxels, prediction 3 voxels aside"


def lesions(shape, shift):
    """Balls of 3 to 9 voxels on a lattice, [z, y, x]; shape as (x, y, z)."""
    z, y, x = np.mgrid[:shape[2], :shape[1], :shape[0]]
    x = x + shift
    d2 = sum((i % 44 - 22.0) ** 2 for i in (x, y, z))
    return d2 <= (3.0 + (x // 44 + y // 44 + z // 44) % 7) ** 2


def boxes(shape, *corners):
    """A mask [z, y, x] with boxes given as (x, y, z) of the first voxel and of the one past the last."""
    m = np.zeros(shape[::-1], bool)
    for (x0, y0, z0), (x1, y1, z1) in corners:
        m[z0:z1, y0:y1, x0:x1] = True
    return m


def with_scipy(a, b, spacing):
    """Dice, sensitivity, precision, lesion F1, HD95, ASSD of two masks [z, y, x]; spacing in the same order."""
    sa, sb = (m & ~nd.binary_erosion(m, border_value=0) for m in (a, b))
    da, db = nd.distance_transform_edt(~sb, spacing)[sa], nd.distance_transform_edt(~sa, spacing)[sb]
    both = (a & b).sum()
    return {"dice": 2 * both / (a.sum() + b.sum()), "sensitivity": both / a.sum(), "precision": both / b.sum(),
            "lesion_f1": isles(a, b, 1.0)["lesion_f1"],
            "hd95_mm": max(np.percentile(da, 95), np.percentile(db, 95)), "assd_mm": np.r_[da, db].mean()}


def isles(truth, predicted, voxel_ml):
    """Lesion F1, count and volume difference by the definitions of the ISLES'22 evaluation, lesion by lesion with cc3d.

    A lesion of the truth that shares a voxel with the prediction is found, the others are missed; one of the prediction
    that shares none with the truth is false. Without any lesion the F1 is 1.
    """
    labels, n_truth = cc3d.connected_components(truth, connectivity=26, return_N=True)
    found = sum(bool((lesion & predicted).any()) for _, lesion in cc3d.each(labels, binary=True, in_place=True))
    labels, n_predicted = cc3d.connected_components(predicted, connectivity=26, return_N=True)
    false = sum(not (lesion & truth).any() for _, lesion in cc3d.each(labels, binary=True, in_place=True))
    counted = found + (n_truth - found + false) / 2
    return {"lesion_f1": found / counted if counted else 1.0, "lesion_count_difference": abs(n_truth - n_predicted),
            "absolute_volume_difference_ml": abs(int(truth.sum()) - int(predicted.sum())) * voxel_ml}


def tensors(*masks):
    import torch
    return [torch.from_numpy(np.ascontiguousarray(m)).float()[None, None] for m in masks]


def monai_overlap(truth, predicted):
    from monai.metrics import compute_confusion_matrix_metric, compute_dice, get_confusion_matrix
    y, p = tensors(truth, predicted)
    matrix = get_confusion_matrix(p, y)
    said = {name: float(compute_confusion_matrix_metric(name, matrix)) for name in ("sensitivity", "precision")}
    return {"dice": float(compute_dice(p, y, ignore_empty=False)), **said}


def monai_distances(truth, predicted, spacing):
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
    y, p = tensors(truth, predicted)
    return {"hd95_mm": float(compute_hausdorff_distance(p, y, include_background=True, percentile=95, spacing=list(spacing))),
            "assd_mm": float(compute_average_surface_distance(p, y, include_background=True, symmetric=True,
                                                              spacing=list(spacing)))}


def pairs(work):
    """(what, truth, prediction, spacing as x, y, z): made up, and lesions of real patients beside moved ones."""
    rng = np.random.default_rng(5)
    for name, (shape, spacing) in SIZES.items():
        yield f"balls, {name}", lesions(shape, 0), lesions(shape, 3), spacing
    noise = rng.random((2, 12, 31, 70)) < [[[[0.02]]], [[[0.05]]]]
    yield "noise, 70×31×12", noise[0], noise[1], (0.9, 1.3, 4.0)
    far = np.zeros((2, 20, 90, 90), bool)
    far[0, 1:4, 2:30, 2:30] = far[1, 15:19, 50:88, 60:88] = True
    yield "far apart, 90×90×20", far[0], far[1], (1.0, 1.2, 5.0)
    folder = os.path.join(work.real, "lesions") if work.real else None
    names = sorted(n for n in os.listdir(folder) if n.startswith("bwsrsub")) if folder and os.path.isdir(folder) else []
    for name in names[:6]:
        image = nib.load(os.path.join(folder, name))
        mask = np.ascontiguousarray(np.asanyarray(image.dataobj).squeeze().T > 0)
        yield name.split("_")[0], mask, np.roll(mask, (1, -2, 2), (0, 1, 2)), tuple(map(float, image.header.get_zooms()[:3]))


def same_labels(a, b):
    """Whether two label volumes are the same but for the order of the labels."""
    both = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(a)) == len(np.unique(b)) == both.shape[1]


def agree(work):
    warnings.simplefilter("ignore")
    rows = []
    for what, truth, predicted, spacing in pairs(work):
        rows += components(work, what, truth | predicted)
        grid = scaled(*spacing)
        mm = work.run("distance", affine=grid, mask=truth).images["out"]
        apart = np.abs(mm - nd.distance_transform_edt(~truth, spacing[::-1])).max()
        rows.append(agreement("distance transform", "SciPy", what, apart, 1e-4, "mm"))
        rows += scores(work, what, truth, predicted, spacing)
    rows += empty(work)
    return rows


def components(work, what, mask):
    rows = []
    for connectivity, rank in ((6, 1), (18, 2), (26, 3)):
        ours = work.run("label", 0, {"connectivity": NAMES[connectivity]}, mask=mask).images["out"].astype("u4")
        theirs = {"cc3d": cc3d.connected_components(mask, connectivity=connectivity),
                  "SciPy": nd.label(mask, nd.generate_binary_structure(3, rank))[0]}
        for rival, labels in theirs.items():
            rows.append(equal(f"components {connectivity}", rival, what, (int(ours.max()), True),
                              (int(labels.max()), same_labels(ours, labels))))
    return rows


def scores(work, what, truth, predicted, spacing):
    ours = work.run("score", 0, affine=scaled(*spacing), mask=truth, predicted=predicted).numbers
    voxel_ml = float(np.prod(np.asarray(spacing, "f4").astype("f8"))) / 1000
    peers = {"MONAI": monai_overlap(truth, predicted) | monai_distances(truth, predicted, spacing[::-1]),
             "SciPy": with_scipy(truth, predicted, spacing[::-1]),
             "ISLES'22": isles(truth, predicted, voxel_ml)}
    # MONAI computes shares in single precision.
    limits = {"hd95_mm": (1e-4, "mm"), "assd_mm": (1e-4, "mm"), "absolute_volume_difference_ml": (1e-6, "mL")}
    return [agreement(key, rival, what, abs(ours[key] - value), *limits.get(key, (1e-6, "")), ours[key], value)
            for rival, found in peers.items() for key, value in found.items()]


def empty(work):
    """Where MONAI and ISLES'22 define a figure for empty masks, ours is the same; what has no value is null."""
    some, none = boxes((9, 8, 7), ([1, 1, 1], [3, 3, 3])), boxes((9, 8, 7))
    rows = []
    for what, truth, predicted in (("both empty", none, none), ("truth empty", none, some), ("prediction empty", some, none)):
        ours = work.run("score", mask=truth, predicted=predicted).numbers
        theirs = isles(truth, predicted, 0.001)
        rows += [equal(key, "ISLES'22", what, float(ours[key]), float(value)) for key, value in theirs.items()]
        found = monai_overlap(truth, predicted)
        if truth.any() or predicted.any():
            rows.append(equal("dice", "MONAI", what, ours["dice"], found["dice"]))
        for key in ("sensitivity", "precision"):
            if truth.any() or predicted.any():
                value = None if np.isnan(found[key]) else found[key]
                rows.append(equal(key, "MONAI", what, ours[key], value))
        rows.append(equal("hd95_mm, assd_mm", "definition", what, (ours["hd95_mm"], ours["assd_mm"]), (None, None)))
    return rows


def speed(work):
    warnings.simplefilter("ignore")
    rows = []
    for name, (shape, spacing) in SIZES.items():
        truth, predicted = lesions(shape, 0), lesions(shape, 3)
        voxels, grid = truth.size, scaled(*spacing)
        what = f"{name}, {LESIONS}"

        def ours(kernel, **more):
            return work.run(kernel, 5 * work.repeats, affine=grid, mask=truth, **more).cpu_ms

        def numpy_overlap():
            both, t, p = np.logical_and(truth, predicted).sum(), truth.sum(), predicted.sum()
            return 2 * both / (t + p), both / t, both / p

        voxel_ml = float(np.prod(spacing)) / 1000
        overlap, hausdorff = ours("overlap", predicted=predicted), ours("hausdorff", predicted=predicted)
        found = ours("lesions", predicted=predicted)
        rows += [
            speed_row("DSC, sensitivity, precision", "NumPy", what, overlap, cpu_ms(numpy_overlap), 10, bytes=2 * voxels),
            speed_row("DSC, sensitivity, precision", "MONAI", what, overlap, cpu_ms(lambda: monai_overlap(truth, predicted), 3),
                      bytes=2 * voxels),
            speed_row("HD95", "MONAI", what, hausdorff, cpu_ms(lambda: monai_hd95(truth, predicted, spacing[::-1]), 3), 10,
                      bytes=2 * voxels, note="ours gives the ASSD too"),
            speed_row("lesion F1, counts, volumes", "cc3d, ISLES'22", what, found,
                      cpu_ms(lambda: isles(truth, predicted, voxel_ml), 3), 20, bytes=2 * voxels),
        ]
        time = work.run("label", 5 * work.repeats, {"connectivity": "twenty_six"}, mask=truth).cpu_ms
        rows.append(speed_row("components 26", "cc3d", what, time, cpu_ms(lambda: cc3d.connected_components(truth)),
                              bytes=5 * voxels))
        rows.append(speed_row("distance transform", "SciPy", what, ours("distance"),
                              cpu_ms(lambda: nd.distance_transform_edt(~truth, spacing[::-1]), 3), bytes=9 * voxels))
    return rows


def monai_hd95(truth, predicted, spacing):
    from monai.metrics import compute_hausdorff_distance
    y, p = tensors(truth, predicted)
    return float(compute_hausdorff_distance(p, y, include_background=True, percentile=95, spacing=list(spacing)))


def ramp(shape):
    """A reproducible image [z, y, x] without symmetry; shape as (x, y, z)."""
    z, y, x = np.mgrid[:shape[2], :shape[1], :shape[0]]
    return ((x * 7 + y * 13 + z * 29) % 31 + 0.5 * x - 0.25 * y * z).astype('f4')


LPS = np.diag([-1.0, -1.0, 1.0])


def to_sitk(array, affine):
    """An array [z, y, x] with a voxel -> world matrix (RAS+) as SimpleITK's image (LPS+)."""
    image = sitk.GetImageFromArray(array)
    linear = LPS @ np.asarray(affine)[:3, :3]
    spacing = np.linalg.norm(linear, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((linear / spacing).ravel().tolist())
    image.SetOrigin((LPS @ np.asarray(affine)[:3, 3]).tolist())
    return image


def rotation(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    m = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
    return m


def affine(linear, origin):
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = linear, origin
    return m


def resample(array, source, target, shape, linear=True, fill=-1.0):
    reference = to_sitk(np.zeros(shape[::-1], np.float32), target)
    method = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    return sitk.GetArrayFromImage(
        sitk.Resample(to_sitk(array, source), reference, sitk.Transform(), method, fill))


def resample_numbers():
    shape = (6, 5, 4)
    image = ramp(shape)
    source = affine(np.diag([2.0, 2.0, 4.0]), [-5.0, 3.0, 1.0])
    finer = affine(np.diag([1.5, 2.5, 3.0]), [-6.1, 2.3, 0.2])
    out = resample(image, source, finer, (8, 5, 6))
    print('aligned', out[0, 0], out[3, 2], out[5, 4], out.sum(dtype=np.float64), sep='\n')
    out = resample(image, source, finer, (8, 5, 6), linear=False)
    print('aligned nearest', out[3, 2], out.sum(dtype=np.float64), sep='\n')
    oblique = affine(rotation(0, 20) @ rotation(2, -35) @ np.diag([-1.7, 1.9, 2.2]), [4.0, -1.0, 2.0])
    out = resample(image, source, oblique, (7, 6, 5))
    print('oblique', out[1, 2], out[2, 3], out[3, 4], out.sum(dtype=np.float64), sep='\n')
    out = resample(image, oblique, source, (6, 5, 4))
    print('from oblique', out[1, 2], out[2, 3], out.sum(dtype=np.float64), sep='\n')
    swapped = affine(np.array([[0, 0, -3.0], [2.2, 0, 0], [0, 1.7, 0]]), [5.9, 2.5, 0.4])
    out = resample(image, source, swapped, (5, 7, 4))
    print('swapped axes', out[1, 2], out[2, 3], out.sum(dtype=np.float64), sep='\n')


def numbers():
    m = np.zeros((3, 4, 5), bool)
    m[0, 0, 0] = m[2, 3, 2] = True
    print("distance", nd.distance_transform_edt(~m, (4.0, 2.5, 1.5))[1, :, [0, 4]].T.tolist())
    t = boxes((9, 8, 7), ([1, 1, 1], [4, 4, 3]), ([6, 6, 4], [9, 8, 7]), ([0, 6, 0], [1, 7, 1]))
    p = boxes((9, 8, 7), ([2, 1, 1], [6, 3, 4]), ([7, 6, 5], [9, 8, 7]), ([5, 0, 6], [6, 1, 7]))
    print("score", with_scipy(t, p, (4.0, 2.0, 1.5)))
    resample_numbers()


if __name__ == "__main__":
    numbers()
