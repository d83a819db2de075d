"""Losses, optimizers, the average of weights and event files: what MONAI, PyTorch and TensorBoard make of the same.

`python training.py` prints the numbers stored in the tests of src/training (loss.rs, optimizer.rs, optimizer/average.rs) and
of src/formats/tensorboard.rs.
"""
import io

import json
import tempfile
from pathlib import Path

import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss

from work import equal

LOGITS = [[0.0, 2.0, -1.0, 0.5], [-3.0, -2.0, -4.0, -1.0]]
TRUTHS = [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
GRADIENTS = [0.5, -0.25, 2.0]


def batch():
    """Logits and truths [batch, 1, z, y, x]."""
    shape = (2, 1, 1, 2, 2)
    return torch.tensor(LOGITS).reshape(shape), torch.tensor(TRUTHS).reshape(shape)


def hardest(logits, truths, share):
    """The mean cross-entropy of the share of voxels where it is largest."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, truths, reduction="none").flatten()
    return each.topk(round(share * each.numel())).values.mean()


# Our smoothing is 1 in (2 tp + 1) / (..), which in MONAI's Tversky, tp / (..), is a half.
LOSSES = {
    "Dice": DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0),
    "cross-entropy": torch.nn.BCEWithLogitsLoss(),
    "hardest": lambda logits, truths: hardest(logits, truths, 0.375),
    "Tversky": TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=0.5, smooth_dr=0.5),
    "focal": FocalLoss(gamma=2.0),
}


def followed(make, clip=None):
    """A weight of 1 after each of the gradients."""
    weight = torch.nn.Parameter(torch.ones(1, 1))
    optimizer = make([weight])
    found = []
    for gradient in GRADIENTS:
        weight.grad = torch.full((1, 1), gradient)
        if clip:
            torch.nn.utils.clip_grad_norm_([weight], clip)
        optimizer.step()
        found.append(weight.item())
    return found


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


OPTIMIZERS = {
    "AdamW": (lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01), None),
    "Adam": (lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01), None),
    "SGD": (sgd, None),
    "clipped": (sgd, 0.4),
}


def averaged(values, decay):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
    model = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    found = []
    for value in values:
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        found.append(average.module.weight.item())
    return found


def record():
    """An event of TensorBoard in a record of its own."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in (("loss/train", 0.25), ("dice", 0.75))]
    out = io.BytesIO()
    RecordWriter(out).write(Event(wall_time=1.5, step=300, summary=Summary(value=values)).SerializeToString())
    return out.getvalue().hex()


def agree(work):
    """What TensorBoard reads of our event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    scalars = {"dice/validation": [0.25, 0.5, 0.8125], "loss/train": [1e-30, -2.5, 3e20]}
    with tempfile.TemporaryDirectory(prefix="torcula-peers-") as folder:
        (Path(folder) / "parameters.json").write_text(json.dumps(scalars))
        work.run_in(folder, "events")
        read = EventAccumulator(folder)
        read.Reload()
        found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    single = lambda value: torch.tensor(value).item()
    expected = {tag: [(step, single(value)) for step, value in enumerate(values)] for tag, values in scalars.items()}
    return [equal("event file", "TensorBoard", "tags, steps, values", found == expected, True)]


def speed(work):
    return []


def layouts(repeats=5):
    """How many times as fast a step of a small network is with its channels last; one thread, the least of several."""
    from work import cpu_ms
    torch.set_num_threads(1)
    convolution = lambda a, b: [torch.nn.BatchNorm3d(a), torch.nn.ReLU(), torch.nn.Conv3d(a, b, 3, padding=1)]
    took = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        layers = [torch.nn.Conv3d(1, 8, 3, padding=1), *convolution(8, 8), *convolution(8, 16), *convolution(16, 8)]
        network = torch.nn.Sequential(*layers).to(memory_format=layout)
        images = torch.randn(2, 1, 16, 64, 64)
        took.append(cpu_ms(lambda: network(images).square().mean().backward(), repeats))
    return took[0] / took[1]


def numbers():
    logits, truths = batch()
    for name, loss in LOSSES.items():
        print(name, f"{loss(logits, truths).item():.9f}")
    logits.requires_grad_(True)
    (0.5 * LOSSES["Tversky"](logits, truths) + 0.5 * LOSSES["focal"](logits, truths)).backward()
    print("gradient", [f"{g:.9f}" for g in logits.grad.flatten().tolist()])
    for name, (make, clip) in OPTIMIZERS.items():
        print(name, [f"{w:.9f}" for w in followed(make, clip)])
    print("record", record())
    print("average", [f"{w:.9f}" for w in averaged([1.0, 3.0, -2.0], 0.9)])
    print("channels last", f"{layouts():.2f} times as fast")


if __name__ == "__main__":
    numbers()
