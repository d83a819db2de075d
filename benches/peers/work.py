"""What the groups share: calling our side, real images, phantoms, CPU time, rows of the tables."""
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk


class Work:
    """Our side as a program, the folder of real images (or None), and how often a speed is measured."""

    def __init__(self, peers, real=None, repeats=7, training=None):
        self.peers, self.real, self.repeats, self._training = str(peers), real, repeats, training
        self._machine = None

    def run(self, kernel, repeats=0, parameters=None, affine=None, **inputs):
        """Runs a kernel of ours. Inputs are arrays [z, y, x], or (array, affine); masks are uint8 or bool."""
        with tempfile.TemporaryDirectory(prefix="torcula-peers-") as folder:
            folder = Path(folder)
            for name, array in inputs.items():
                if array is not None:
                    array, own = array if isinstance(array, tuple) else (array, affine)
                    write(folder / f"{name}.nii", array, own)
            (folder / "parameters.json").write_text(json.dumps(parameters or {}))
            return self.run_in(folder, kernel, repeats)

    def run_in(self, folder, kernel, repeats=0):
        """Runs a kernel of ours on a folder that holds its inputs."""
        done = subprocess.run([self.peers, kernel, str(folder), str(repeats)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"peers {kernel}: {done.stderr.strip() or done.stdout.strip()}")
        return Found(Path(folder), json.loads(done.stdout.splitlines()[-1]))

    def training(self):
        """The program that links libtorch."""
        if self._training is None:
            command = ["cargo", "build", "--release", "--bin", "torcula-training"]
            root = Path(__file__).resolve().parent.parent.parent
            subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
            self._training = root / "target/release/torcula-training"
        return str(self._training)

    def machine(self):
        """Bytes and float operations that one core moves and does in a ms."""
        if self._machine is None:
            self._machine = self.run("machine", repeats=9).printed
        return self._machine


class Found:
    """What our side left: `images` by name as arrays [z, y, x], `numbers`, and the line it printed."""

    def __init__(self, folder, printed):
        self.printed, self.cpu_ms = printed, printed.get("cpu_ms")
        self.images, self.affines = {}, {}
        for path in sorted(folder.glob("out*.nii")):
            image = nib.load(path)
            self.images[path.stem] = np.ascontiguousarray(np.asanyarray(image.dataobj).T)
            self.affines[path.stem] = image.affine
        numbers = folder / "out.json"
        self.numbers = json.loads(numbers.read_text()) if numbers.exists() else None


def write(path, array, affine=None):
    array = np.asarray(array)
    array = array.astype("u1") if array.dtype.kind in "bui" else array.astype("f4")
    image = nib.Nifti1Image(array.T, np.eye(4) if affine is None else affine)
    image.set_qform(image.affine, 1, strip_shears=True)
    nib.save(image, path)


def scaled(*spacing):
    """The affine of a grid with this spacing (x, y, z) in mm."""
    return np.diag([*spacing, 1.0])


def to_itk(array, affine=None):
    """An array [z, y, x] and its RAS+ affine (in single precision, as a file stores it) as ITK has it (LPS+)."""
    array = np.asarray(array)
    image = sitk.GetImageFromArray(array.astype("u1") if array.dtype == bool else array)
    if affine is not None:
        lps = np.diag([-1.0, -1, 1, 1]) @ np.asarray(affine, "f4").astype("f8")
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def threads(n):
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n)


def cpu_ms(call, repeats=5):
    """Least CPU time of all threads of this process, in ms."""
    least = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        least = min(least, time.process_time() - start)
    return 1e3 * least


def head(shape=(256, 256, 25), noise=6.0, seed=7):
    """Wavy tissue in an ellipsoid under a smooth field, in noise: image and mask [z, y, x] of shape (x, y, z)."""
    nx, ny, nz = shape
    z, y, x = np.mgrid[-1:1:nz * 1j, -1:1:ny * 1j, -1:1:nx * 1j]
    mask = (x / 0.7) ** 2 + (y / 0.85) ** 2 + (z / 1.2) ** 2 < 1
    image = np.where(mask, 300 + 60 * np.sin(9 * x) * np.cos(7 * y), 8) * np.exp(0.3 * x - 0.2 * y * y)
    image = np.abs(image + np.random.default_rng(seed).normal(0, noise, mask.shape)).astype("f4")
    return image, mask.astype("u1")


SIZES = {"256×256×25": ((256, 256, 25), (1, 1, 5)), "128×128×30": ((128, 128, 30), (2, 2, 4))}


def agreement(kernel, rival, what, difference, limit, unit="", ours="", theirs=""):
    """A row of the table of agreement; `difference` is at most `limit`."""
    return {"kernel": kernel, "rival": rival, "what": what, "ours": ours, "theirs": theirs, "unit": unit,
            "difference": float(difference), "limit": limit, "holds": bool(difference <= limit)}


def equal(kernel, rival, what, ours, theirs):
    """A row of the table of agreement for what must be the same."""
    same = ours == theirs
    return {"kernel": kernel, "rival": rival, "what": what, "ours": str(ours), "theirs": str(theirs), "unit": "",
            "difference": 0.0 if same else float("nan"), "limit": 0, "holds": bool(same)}


def speed(kernel, rival, what, ours_ms, theirs_ms, least=None, bytes=None, operations=None, note=""):
    """A row of the table of speed: `least` times faster is the aim; `bytes` must move, `operations` must be done."""
    ratio = theirs_ms / ours_ms
    return {"kernel": kernel, "rival": rival, "what": what, "ours": ours_ms, "theirs": theirs_ms, "unit": "ms",
            "ratio": ratio, "limit": least, "holds": least is None or ratio >= least,
            "bytes": bytes, "operations": operations, "note": note}


def real_images(work):
    """(name, image [z, y, x], affine) of the real images of the folder, as far as they are there."""
    names = {
        "ISLES DWI": "isles22/rawdata/sub-strokecase0009/ses-0001/sub-strokecase0009_ses-0001_dwi.nii.gz",
        "open_ms FLAIR": "anatomy/open_ms_patient01_FLAIR.nii.gz",
        "someones_anatomy": "anatomy/someones_anatomy.nii.gz",
    }
    for name, path in names.items() if work.real else ():
        if os.path.exists(path := os.path.join(work.real, path)):
            image = nib.load(path)
            array = np.asanyarray(image.dataobj).astype("f4")
            yield name, np.ascontiguousarray(array.reshape(array.shape[:3]).T), image.affine
