"""Files against nibabel: what is read, what nibabel reads of ours, time, and size.

Both write at level 1, nibabel its own default; ours may be no larger.
"""
import gzip
import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from work import SIZES, agreement, cpu_ms, equal, head, scaled, speed as speed_row

LEVEL = 1
READ_LIMIT = "of the bytes alone; the limit is inflating: each look-up waits for the one before and gives 1 to 2 bytes"
WRITE_LIMIT = "; the limit is matches of single voxels, without which the file would be 15 % larger"


def nibabel_write(array, path, affine=None):
    """Writes [z, y, x] as nibabel does."""
    image = nib.Nifti1Image(array.T, np.eye(4) if affine is None else affine)
    image.to_filename(path)


def nibabel_read(path):
    return np.asanyarray(nib.load(path).get_fdata(dtype=np.float32))


def images(shape):
    """What pipelines read and write: scanner's whole numbers, and normalised intensities of a head without its skull."""
    image, mask = head(shape)
    stripped = image * mask
    normal = np.minimum(stripped * np.float32(150 / np.median(image[mask > 0])), 255).astype("f4")
    return {"int16": np.round(image).astype("i2"), "float32 normalised": normal,
            "float32 normalised, from whole numbers": np.round(stripped) * np.float32(0.4375)}


def read(work, path, repeats=0):
    """Our reading of a file."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "packed.nii.gz"
        os.symlink(Path(path).resolve(), link)
        return work.run_in(folder, "read_gz", repeats)


def write(work, array, affine, repeats=0):
    """Our writing of an array: what nibabel reads of it, its size, and the time."""
    with tempfile.TemporaryDirectory() as folder:
        nib.save(nib.Nifti1Image(array.T, affine), Path(folder) / "image.nii")
        found = work.run_in(folder, "write_gz_i16" if array.dtype.kind == "i" else "write_gz", repeats)
        path = Path(folder) / "written.nii.gz"
        gzip.decompress(path.read_bytes())
        return nib.load(path).get_fdata(dtype=np.float32).T, path.stat().st_size, found


def agree(work):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii.gz"
        for kind, array in images((61, 50, 12)).items():
            for order in "<>":
                header = nib.Nifti1Header(endianness=order)
                header.set_data_dtype(array.dtype)
                nib.Nifti1Image(array.T, scaled(1, 2, 3), header).to_filename(path)
                rows += reading(work, path, f"{kind}, {'little' if order == '<' else 'big'} endian")
            rows += writing(work, kind, array)
        scaled_file = nib.Nifti1Image(images((61, 50, 12))["float32 normalised"].T, scaled(1, 2, 3))
        scaled_file.set_data_dtype("i2")
        scaled_file.to_filename(path)
        rows += reading(work, path, "scaled int16")
    for path in sorted(Path(work.real).glob("isles22/rawdata/**/*.nii.gz")) if work.real else ():
        rows += reading(work, path, path.name)
    return rows


def reading(work, path, what):
    theirs = nibabel_read(path)
    theirs = theirs.reshape(theirs.shape[:3] + (-1,))[..., 0].T
    same = np.array_equal(read(work, path).images["out"], theirs, equal_nan=True)
    return [equal("read .nii.gz", "nibabel", what, same, True)]


def writing(work, kind, array):
    found, size, _ = write(work, array, scaled(1, 2, 3))
    return [agreement("write .nii.gz", "nibabel", kind, np.abs(found - array).max(), 0)]


def speed(work):
    rows = []
    for name, (shape, spacing) in SIZES.items():
        for kind, array in images(shape).items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "a.nii.gz"
                nib.openers.Opener.default_compresslevel = LEVEL
                theirs = cpu_ms(lambda: nibabel_write(array, path, scaled(*spacing)))
                size = path.stat().st_size
                _, our_size, ours = write(work, array, scaled(*spacing), 3 * work.repeats)
                row = speed_row("write .nii.gz", "nibabel", f"{name}, {kind}", ours.cpu_ms, theirs, 3,
                                bytes=array.nbytes + our_size, note=f"{our_size / 1e3:,.0f} kB, theirs {size / 1e3:,.0f} kB" + (WRITE_LIMIT if array.dtype.kind == "i" else ""))
                row["holds"] = row["holds"] and our_size <= size
                rows.append(row)
                ours = read(work, path, 3 * work.repeats).cpu_ms
                rows.append(speed_row("read .nii.gz", "nibabel", f"{name}, {kind}", ours, cpu_ms(lambda: nibabel_read(path)), 3,
                                      bytes=size + 4 * array.size, note=READ_LIMIT))
    return rows
