"""Networks against PyTorch, through `torcula infer`: Swin UNETR against MONAI's, the 3D U-Net against `unet3d.py`, windows and
mirrored images against MONAI's `sliding_window_inference`, a MONAI checkpoint on a real image.

Weights and images come from a formula of their names and places, so that no file is stored. `python networks.py` prints the
numbers stored in the tests of src/training.
"""
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SAMPLES = 10


def formula(name, shape):
    """Values in [-1, 1) that look random: the finaliser of MurmurHash3 over the place, keyed by the name (FNV-1a)."""
    key = 0x811C9DC5
    for byte in name.encode():
        key = (key ^ byte) * 0x01000193 & 0xFFFFFFFF
    h = np.arange(int(np.prod(shape)), dtype="u4") * np.uint32(0x9E3779B1) + np.uint32(key)
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return (h.astype("f8") / 2**31 - 1).reshape(shape)


def weights(name, shape):
    values = formula(name, shape)
    if len(shape) > 1:
        values = values * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith(("weight", "scale", "variance")):
        values = 1 + 0.3 * values
    else:
        values = 0.3 * values
    return values.astype("f4")


def image(shape):
    return formula("image", shape).astype("f4")


def fill(net):
    """Gives every tensor of a network its formula."""
    import torch
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(weights(name, tensor.shape)))
    return net.eval()


SWIN = {
    "feature size 24": ({"in_channels": 1, "out_channels": 1, "feature_size": 24}, (1, 1, 64, 32, 32)),
    "feature size 48, 2 channels, 3 classes": ({"in_channels": 2, "out_channels": 3, "feature_size": 48}, (1, 2, 32, 64, 32)),
    "second version": ({"in_channels": 1, "out_channels": 2, "feature_size": 12, "use_v2": True, "downsample": "mergingv2",
                        "depths": (1, 3, 2, 1), "window_size": 4}, (2, 1, 64, 32, 32)),
}
GRID = {"channels": 2, "filters": [6, 12, 24], "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 2, 2], [2, 2, 2]]}
UNET = {norm: {**GRID, "norm": norm, "dropout": 0.0, "deep_supervision": True} for norm in ("batch", "instance", "group")}
UNET_IMAGE = (2, 2, 4, 16, 12)
WINDOWS = {"in_channels": 1, "out_channels": 1, "feature_size": 12}
VOLUME, ROI, OVERLAP = (70, 40, 20), (64, 32, 32), 0.25


def swin(arguments):
    from monai.networks.nets import SwinUNETR
    return fill(SwinUNETR(**arguments))


def unet(config):
    from unet3d import UNet3d
    return fill(UNet3d(**config))


def blended(net, volume, roi, overlap, flips=()):
    """The probability of an image [x, y, z] by MONAI."""
    import torch
    from monai.inferers import sliding_window_inference

    def run(x):
        ways = [[a for i, a in enumerate(flips) if way >> i & 1] for way in range(1 << len(flips))]
        return sum(net(x.flip(way)).flip(way) if way else net(x) for way in ways) / len(ways)

    with torch.no_grad():
        logits = sliding_window_inference(torch.from_numpy(volume)[None, None], roi, 1, run, overlap=overlap, mode="gaussian")
    return logits.sigmoid()[0, 0].numpy()


def save(net, path, metadata=None):
    from safetensors.torch import save_file
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path, metadata)


def infer(work, net, channels, sets=(), metadata=None, affine=np.eye(4)):
    """Probability and mask [x, y, z] that `torcula infer` finds in images [x, y, z] with the weights of `net`."""
    import nibabel as nib
    with tempfile.TemporaryDirectory(prefix="torcula-peers-") as folder:
        folder = Path(folder)
        save(net, folder / "model.safetensors", metadata)
        paths = [folder / f"image{number}.nii" for number in range(len(channels))]
        for path, channel in zip(paths, channels):
            nib.save(nib.Nifti1Image(channel, affine), path)
        mask, probability = folder / "mask.nii", folder / "probability.nii"
        command = [work.training(), "infer", folder / "model.safetensors", paths[0], mask, "--probability", probability]
        for path in paths[1:]:
            command += ["--channel", path]
        for text in ("device=cpu", *sets):
            command += ["--set", text]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"torcula infer: {done.stderr.strip()}")
        return [np.asarray(nib.load(path).dataobj) for path in (probability, mask)]


def lesion(net, channels, softmax):
    """The probability of the lesion [x, y, z] by PyTorch, the whole image at once."""
    import torch
    with torch.no_grad():
        logits = net(torch.from_numpy(np.stack(channels)[None]))
    return (logits.softmax(1)[0, 1] if softmax else logits.sigmoid()[0, 0]).numpy()


def agree(work):
    from work import agreement, real_images
    rows = []

    def row(kernel, rival, what, ours, theirs):
        rows.append(agreement(kernel, rival, what, np.abs(ours - theirs).max(), 1e-4))

    for name, (arguments, shape) in SWIN.items():
        net, channels = swin(arguments), list(image(shape)[0])
        sets = ["window=[0, 0, 0]"] + ([f"downsample={arguments['downsample']}"] if "downsample" in arguments else [])
        ours, _ = infer(work, net, channels, sets)
        row("swin_unetr", "MONAI", name, ours, lesion(net, channels, arguments["out_channels"] > 1))
    for norm, config in UNET.items():
        net, channels = unet(config), list(image(UNET_IMAGE)[0])
        # Images [z, y, x] for the network, [x, y, z] in files.
        spec = {"network": {"unet3d": config}, "shape": list(UNET_IMAGE[:1:-1]), "spacing_mm": [1.0, 1.0, 1.0],
                "intensity_scale": 0.5, "axes": "zyx", "activation": "sigmoid", "channel": 0}
        ours, _ = infer(work, net, [2 * c.T for c in channels], metadata={"torcula.network": json.dumps(spec)})
        row("unet3d", "PyTorch", f"norm {norm}", ours.T, lesion(net, channels, False))
    volume, net = image(VOLUME), swin(WINDOWS)
    sets = [f"window={list(ROI)}", f"overlap={OVERLAP}"]
    row("windows", "MONAI", "Gaussian", infer(work, net, [volume], sets)[0], blended(net, volume, ROI, OVERLAP))
    ours, _ = infer(work, net, [volume], [*sets, "flip=[x, z]"])
    row("windows", "MONAI", "Gaussian, mirrored along x, z", ours, blended(net, volume, ROI, OVERLAP, (2, 4)))
    for name, array, affine in real_images(work):
        if name != "ISLES DWI":
            continue
        volume, net = np.ascontiguousarray(array.T), swin(SWIN["feature size 24"][0])
        ours, mask = infer(work, net, [volume], affine=affine)
        theirs = blended(net, volume, (96, 96, 96), 0.5)
        row("torcula infer", "MONAI", f"{name}, probability", ours, theirs)
        theirs = theirs >= 0.5
        dice = 2 * (mask & theirs).sum() / (mask.sum() + theirs.sum())
        what = f"{name}, 1 - Dice of masks of {mask.sum():,} and {theirs.sum():,} voxels"
        rows.append(agreement("torcula infer", "MONAI", what, 1 - dice, 1e-3))
    return rows


def speed(work):
    return []


def samples(array):
    flat = np.ravel(array)
    return [float(flat[(k + 1) * flat.size // (SAMPLES + 1)]) for k in range(SAMPLES)]


def numbers():
    import torch
    with torch.no_grad():
        for name, (arguments, shape) in SWIN.items():
            out = swin(arguments)(torch.from_numpy(image(shape))).numpy()
            print(name, out.std(), samples(out))
        for norm, config in UNET.items():
            net, x = unet(config), torch.from_numpy(image(UNET_IMAGE))
            print(norm, net(x).numpy().std(), samples(net(x).numpy()))
            heads, shares = net.train().heads(x)
            print(norm, "training", [samples(head.numpy())[:4] for head in heads], shares)
    volume, net = image(VOLUME), swin(WINDOWS)
    print("windows", samples(blended(net, volume, ROI, OVERLAP)), samples(blended(net, volume, ROI, OVERLAP, (2, 4))))


if __name__ == "__main__":
    numbers()
