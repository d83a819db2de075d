"""Networks against PyTorch: Swin UNETR against MONAI's, the 3D U-Net against `unet3d.py`, sliding windows against MONAI's
`sliding_window_inference`, a MONAI checkpoint through `torcula infer`, and the time of a training step.

Weights and images come from a formula of their names and places, so that no file is stored. `python networks.py` prints the
numbers stored in the tests of src/training. Our side is the bench `networks` of the crate torcula-training.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
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
    elif name.endswith(("weight", "running_var")):
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
