"""Quality metrics against MRIQC's published definitions, written out in NumPy (mriqc.qc.anatomical and .functional).

MRIQC takes head, air and tissues from segmentations; here both sides take them from the rules of src/imaging/quality, so
that what is compared is the metrics.
"""
import numpy as np

from work import SIZES, agreement, cpu_ms, equal, head, real_images, scaled, speed as speed_row

BINS = 256
RAYLEIGH = 1 / np.sqrt(2 / (4 - np.pi))


def efc(img):
    n_vox = img.size
    efc_max = n_vox * (1 / np.sqrt(n_vox)) * np.log(1 / np.sqrt(n_vox))
    b_max = np.sqrt((img**2).sum())
    return (1 / efc_max) * np.sum((img / b_max) * np.log((img + 1e-16) / b_max))


def gsr(img, mask, axis):
    n2_mask = np.roll(mask, mask.shape[axis] // 2, axis=axis)
    n2_mask = n2_mask * (1 - mask)
    n2_mask = n2_mask + 2 * (1 - n2_mask - mask)
    ghost = np.mean(img[n2_mask == 1]) - np.mean(img[n2_mask == 2])
    return ghost / np.median(img[n2_mask == 0])


def cjv(below, above):
    return (below.std() + above.std()) / abs(below.mean() - above.mean())


def split(values, low, high):
    """Otsu's threshold with 256 bins up to the 99.5th percentile, in single precision as in foreground.rs."""
    low, high = np.float32(low), np.float32(high)

    def histogram(top):
        scale = np.float32(BINS) / (top - low)
        return np.bincount(np.clip(((values - low) * scale), 0, BINS - 1).astype("i8"), minlength=BINS)

    counts = histogram(high)
    edge = np.argmax(np.cumsum(counts) >= 0.995 * counts.sum())
    top = low + (high - low) * (np.float32(edge + 1) / np.float32(BINS))
    counts, bins = histogram(top).astype("f8"), np.arange(BINS)
    below, above = np.cumsum(counts)[:-1], counts.sum() - np.cumsum(counts)[:-1]
    moment = np.cumsum(bins * counts)
    with np.errstate(all="ignore"):
        between = below * above * (moment[:-1] / below - (moment[-1] - moment[:-1]) / above) ** 2
    return low + (top - low) * (np.float32(np.nanargmax(between) + 1) / np.float32(BINS))


def air(img, mask, spacing_x):
    margin = int(np.ceil(8 / spacing_x))
    parts = []
    for row, inside in zip(img.reshape(-1, img.shape[-1]), mask.reshape(-1, img.shape[-1])):
        at = np.flatnonzero(inside)
        parts += [row[: max(at[0] - margin, 0)], row[at[-1] + 1 + margin:]] if at.size else [row]
    values = np.concatenate(parts)
    if values.size < 200 or 2 * (values == 0).sum() > values.size:
        return None
    middle = np.median(values)
    apart = abs(values - middle)
    kept = values[apart <= 5 * 1.482602218505602 * np.median(apart)]
    return kept if kept.std() > 0 else None


def reference(img, spacing_x):
    values = img.astype("f8")
    mask = (img > split(img.ravel(), img.min(), img.max())).astype("i8")
    inside = img[mask == 1]
    threshold = split(inside, inside.min(), img.max())
    found = {
        "intensity_min": values.min(), "intensity_max": values.max(), "negative_share": (img < 0).mean(),
        "foreground_share": mask.mean(),
        "efc": efc(abs(values)),
        "cjv": cjv(inside[inside <= threshold].astype("f8"), inside[inside > threshold].astype("f8")),
        "gsr along y": gsr(values, mask, 1), "gsr along x": gsr(values, mask, 2),
    }
    noise = air(values, mask, spacing_x)
    if noise is not None:
        found["noise_sigma"] = noise.std() / RAYLEIGH
        found["snr"] = values[mask == 1].mean() / found["noise_sigma"]  # snr_dietrich
    return found


def volumes(work):
    for shape, spacing in (((256, 256, 25), (1, 1, 5)), ((61, 53, 17), (2, 2, 4))):
        yield "×".join(map(str, shape)), head(shape)[0], scaled(*spacing)
    yield from real_images(work)


def agree(work):
    rows = []
    for name, image, affine in volumes(work):
        found = {}
        for axis in "xy":
            numbers = work.run("quality", 0, {"phase_axis": axis}, affine, image=image).numbers
            found |= numbers | {f"gsr along {axis}": numbers["ghost_to_signal_ratio"]}
        theirs = reference(image, np.linalg.norm(affine[:3, 0]))
        rows.append(equal("quality", "MRIQC's definitions", f"{name}: noise from", found["noise_source"],
                          "air" if "noise_sigma" in theirs else "head"))
        for metric, value in theirs.items():
            # Single precision sums in lanes, double beyond a row.
            rows.append(agreement("quality", "MRIQC's definitions", f"{name}: {metric}, relative",
                                  abs(found[metric] - value) / max(abs(value), 1e-3), 1e-6, "", found[metric], value))
    return rows


def speed(work):
    rows = []
    for name, (shape, spacing) in SIZES.items():
        image, _ = head(shape)
        found = work.run("quality", work.repeats, {}, scaled(*spacing), image=image)
        theirs = cpu_ms(lambda: reference(image, spacing[0]), 3)
        rows.append(speed_row("quality, all metrics", "NumPy", name, found.cpu_ms, theirs, None, bytes=4 * image.size))
    return rows
