"""The training feed against NumPy, MONAI, WebDataset and TorchIO: the same samples, an epoch in random order, one core.

Samples lie where each has them fastest: ours in shards and NumPy's in a file, both memory-mapped; MONAI's and TorchIO's in memory;
WebDataset's in a tar. All hot. None has worker processes: what these add is copies between processes.
"""
import io
import os
import tarfile
import tempfile
from pathlib import Path

import json

import numpy as np

from work import cpu_ms, equal, speed as speed_row

BATCH = 8


def samples(count, shape, spacing):
    """Heads in noise [samples, z, y, x] with a lesion each."""
    nx, ny, nz = shape
    z, y, x = np.mgrid[-1:1:nz * 1j, -1:1:ny * 1j, -1:1:nx * 1j]
    head = (x / 0.7) ** 2 + (y / 0.85) ** 2 + (z / 1.2) ** 2 < 1
    rng = np.random.default_rng(3)
    images = np.empty((count, nz, ny, nx), "f4")
    truths = np.empty(images.shape, "u1")
    for i in range(count):
        cx, cy, cz = rng.uniform(-0.4, 0.4, 3)
        truths[i] = ((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < 0.02) & head
        images[i] = head * np.clip(150 + 60 * truths[i] + rng.normal(0, 8, head.shape), 0, 255)
    return images, truths, spacing


def ours(work, folder, data, repeats=0, **options):
    """Our feed over the samples; what it fed stands in the folder."""
    images, truths, spacing = data
    images.tofile(folder / "images.f32")
    truths.tofile(folder / "truths.u8")
    parameters = {"shape": images.shape, "spacing_mm": spacing, "batch": BATCH, "augment": False, "shuffle": True,
                  "patch": None, "precision": "float32", "workers": 1, **options}
    (folder / "parameters.json").write_text(json.dumps(parameters))
    return work.run_in(folder, "feed", repeats)


def agree(work):
    rows = []
    data = samples(37, (20, 24, 6), (2.0, 2.0, 5.0))
    for what, options in {"in order": {"shuffle": False}, "shuffled": {}}.items():
        with tempfile.TemporaryDirectory(prefix="torcula-peers-") as folder:
            folder = Path(folder)
            order = [int(i) for i in ours(work, folder, data, **options).numbers]
            fed = np.fromfile(folder / "batches.f32", "f4").reshape(data[0].shape)
            masks = np.fromfile(folder / "batch_truths.u8", "u1").reshape(data[1].shape)
        complete = sorted(order) == list(range(37)) and (order != sorted(order)) == (what == "shuffled")
        same = complete and np.array_equal(fed, data[0][order]) and np.array_equal(masks, data[1][order])
        rows.append(equal("feed", "NumPy", f"{what}: every sample once, the same bytes", same, True))
    return rows


def numpy_mmap(folder, images, truths):
    np.save(folder / "images.npy", images)
    np.save(folder / "truths.npy", truths)
    image, truth = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("images", "truths"))
    rng = np.random.default_rng(0)

    def epoch():
        order = rng.permutation(len(image))
        for start in range(0, len(order), BATCH):
            chosen = order[start:start + BATCH]
            batch = np.stack([image[i] for i in chosen])[:, None], np.stack([truth[i] for i in chosen])[:, None]
            del batch
    return epoch


def loader(dataset):
    from torch.utils.data import DataLoader
    made = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0)

    def epoch():
        for _ in made:
            pass
    return epoch


def monai_cache(images, truths):
    import torch
    from monai.data import CacheDataset
    tensors = [{"image": torch.from_numpy(i)[None], "truth": torch.from_numpy(t)[None]} for i, t in zip(images, truths)]
    return loader(CacheDataset(tensors, transform=lambda sample: sample, progress=False))


def webdataset(folder, images, truths):
    import webdataset as wds
    path = folder / "samples.tar"
    with tarfile.open(path, "w") as tar:
        for i, (image, truth) in enumerate(zip(images, truths)):
            for name, array in (("image", image), ("truth", truth)):
                buffer = io.BytesIO()
                np.save(buffer, array[None])
                entry = tarfile.TarInfo(f"{i:06}.{name}.npy")
                entry.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(entry, buffer)

    def epoch():
        made = wds.WebDataset(f"file:{path}", shardshuffle=False, empty_check=False).shuffle(64).decode()
        for _ in made.to_tuple("image.npy", "truth.npy").batched(BATCH):
            pass
    return epoch


def monai_augmented(images, truths):
    """Turned, scaled and moved within slices, bias field, mirrored, contrast; each for half of the samples, like ours."""
    import torch
    from monai.data import Dataset
    from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandBiasFieldd, RandFlipd
    both = ["image", "truth"]
    transform = Compose([
        RandAffined(both, prob=0.5, rotate_range=(0, 0, np.radians(10)), scale_range=(0.1, 0.1, 0), translate_range=(3, 3, 0),
                    mode=["bilinear", "nearest"], padding_mode="zeros"),
        RandBiasFieldd("image", degree=3, coeff_range=(-0.5, 0.5), prob=0.5),
        RandFlipd(both, prob=0.5, spatial_axis=0),
        RandAdjustContrastd("image", prob=0.5, gamma=(0.74, 1.35)),
    ])
    tensors = [{"image": torch.from_numpy(np.ascontiguousarray(i.T))[None], "truth": torch.from_numpy(np.ascontiguousarray(t.T))[None]}
               for i, t in zip(images, truths)]
    return loader(Dataset(tensors, transform))


def torchio_queue(images, truths, spacing):
    import torch
    import torchio as tio
    from torch.utils.data import DataLoader
    affine = np.diag([*spacing, 1.0])
    subjects = [tio.Subject(image=tio.ScalarImage(tensor=torch.from_numpy(np.ascontiguousarray(i.T))[None], affine=affine),
                            truth=tio.LabelMap(tensor=torch.from_numpy(np.ascontiguousarray(t.T))[None], affine=affine))
                for i, t in zip(images, truths)]
    transform = tio.Compose([
        tio.RandomAffine(scales=(0.9, 1.1, 0.9, 1.1, 1, 1), degrees=(0, 0, 0, 0, -10, 10), translation=(-5, 5, -5, 5, 0, 0), p=0.5),
        tio.RandomBiasField(coefficients=0.5, order=3, p=0.5),
        tio.RandomFlip(axes=(0,), flip_probability=0.5),
        tio.RandomGamma(log_gamma=0.3, p=0.5),
    ])
    sampler = tio.data.UniformSampler(images.shape[:0:-1])
    queue = tio.Queue(tio.SubjectsDataset(subjects, transform), max_length=BATCH, samples_per_volume=1, sampler=sampler,
                      num_workers=0)
    made = DataLoader(queue, batch_size=BATCH, num_workers=0)

    def epoch():
        for _ in made:
            pass
    return epoch


def speed(work):
    import torch
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(prefix="torcula-peers-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        folder = Path(folder)
        images, truths, spacing = data = samples(256, (64, 64, 16), (3.0, 3.0, 6.0))
        moved = {"bytes": 2 * (images.nbytes + truths.nbytes)}
        plain = ours(work, folder, data, 3 * work.repeats).cpu_ms
        what = "256 of 64×64×16 float32, batch 8"
        for rival, make, least in (("NumPy mmap", numpy_mmap(folder, images, truths), 2),
                                   ("MONAI CacheDataset", monai_cache(images, truths), 2),
                                   ("WebDataset", webdataset(folder, images, truths), 10)):
            rows.append(speed_row("feed", rival, what, plain, cpu_ms(make, work.repeats), least, **moved,
                                  note=f"{256e3 / plain:,.0f} samples/s"))
        half = ours(work, folder, data, 3 * work.repeats, precision="float16").cpu_ms
        rows.append(speed_row("feed", "ours, float32", "the same from float16", half, plain))
        images, truths, spacing = data = samples(32, (128, 128, 16), (2.0, 2.0, 6.0))
        augmented = ours(work, folder, data, 3 * work.repeats, augment=True).cpu_ms
        what = "32 of 128×128×16, four augmentations"
        note = f"{32e3 / augmented:,.0f} samples/s"
        for rival, make, least in (("MONAI Dataset", monai_augmented(images, truths), 15),
                                   ("TorchIO Queue", torchio_queue(images, truths, spacing), 30)):
            rows.append(speed_row("feed", rival, what, augmented, cpu_ms(make, 3), least, note=note))
    return rows
