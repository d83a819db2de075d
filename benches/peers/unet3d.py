"""The project's 3D U-Net in PyTorch, parameter for parameter: a model that Torcula trained loads unchanged.

    with safe_open("unet.safetensors", "pt") as file:
        spec = json.loads(file.metadata()["torcula.network"])
        net = UNet3d(**spec["network"]["unet3d"]).eval()
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    probability = net(image * spec["intensity_scale"]).sigmoid()      # image [batch, channel, z, y, x]
"""
import torch
from torch import nn
from torch.nn import functional as F


class Norm(nn.Module):
    """Batch, instance or group normalisation, with the names of Torcula's tensors."""

    def __init__(self, channels, norm):
        super().__init__()
        self.norm, self.groups = norm, common(channels, 8)
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        if norm == "batch":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))

    def forward(self, x):
        if self.norm == "batch":
            return F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, self.training)
        if self.norm == "instance":
            return F.instance_norm(x, weight=self.scale, bias=self.shift)
        return F.group_norm(x, self.groups, self.scale, self.shift)


class Unit(nn.Module):
    """Normalisation, ReLU, dropout of channels, convolution."""

    def __init__(self, before, after, kernel, norm, dropout=0.0, bias=False):
        super().__init__()
        self.norm = Norm(before, norm)
        self.dropout = dropout
        self.conv = nn.Conv3d(before, after, kernel, padding=[k // 2 for k in kernel], bias=bias)

    def forward(self, x):
        x = F.relu(self.norm(x), inplace=True)
        if self.dropout:
            x = F.dropout3d(x, self.dropout, self.training)
        return self.conv(x)


def common(a, b):
    return a if b == 0 else common(b, a % b)


class Up(nn.ConvTranspose3d):
    """A transposed convolution to the level above, the skip beside it, two units."""

    def __init__(self, below, width, stride, kernel, norm, dropout):
        super().__init__(below, width, stride, stride)
        self.add_module("0", Unit(2 * width, width, kernel, norm, dropout))
        self.add_module("1", Unit(width, width, kernel, norm, dropout))

    def forward(self, x, skip):
        x = torch.cat([skip, super().forward(x)], 1)
        return self.get_submodule("1")(self.get_submodule("0")(x))


class UNet3d(nn.Module):
    def __init__(self, channels, filters, kernels, strides, norm="batch", dropout=0.0, deep_supervision=False):
        super().__init__()
        self.strides = strides
        self.stem = nn.Conv3d(channels, filters[0], kernels[0], padding=[k // 2 for k in kernels[0]], bias=False)
        for level, width in enumerate(filters):
            before = filters[max(level - 1, 0)]
            self.add_module(f"down{level}", nn.Sequential(Unit(before, width, kernels[level], norm, dropout),
                                                          Unit(width, width, kernels[level], norm, dropout)))
        for level, stride in enumerate(strides):
            self.add_module(f"up{level}", Up(filters[level + 1], filters[level], stride, kernels[level], norm, dropout))
        self.head = Unit(filters[0], 1, [1, 1, 1], norm, bias=True)
        self.sides = range(1, len(strides)) if deep_supervision else ()
        for level in self.sides:
            self.add_module(f"side{level}", Unit(filters[level], 1, [1, 1, 1], norm, bias=True))

    def levels(self, x):
        """The decoder's features, coarsest first."""
        x = self.stem(x)
        skips = []
        for level, stride in enumerate(self.strides):
            skips.append(self.get_submodule(f"down{level}")(x))
            x = F.max_pool3d(skips[-1], stride, stride)
        found = [self.get_submodule(f"down{len(self.strides)}")(x)]
        for level in reversed(range(len(self.strides))):
            found.append(self.get_submodule(f"up{level}")(found[-1], skips[level]))
        return found

    def forward(self, x):
        return self.head(self.levels(x)[-1])

    def heads(self, x):
        """The logits of every head, finest first, all in the shape of the image; and the shares of the loss."""
        levels = self.levels(x)[::-1]
        found = [self.head(levels[0])]
        for level in self.sides:
            coarse = self.get_submodule(f"side{level}")(levels[level])
            found.append(F.interpolate(coarse, x.shape[2:], mode="trilinear"))
        shares = [0.5 ** level for level in range(len(found))]
        return found, [share / sum(shares) for share in shares]
