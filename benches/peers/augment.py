"""Augmentation against TorchIO, given the same drawn parameters, and against MONAI in time.

The affine moves within slices, so TorchIO's turns about z alone. TorchIO raises intensities to γ as they are, ours takes them
as shares of the brightest: the same where TorchIO gets the shares.

`python augment.py` prints the numbers stored in the tests of src/imaging/augment.
"""
import numpy as np

from work import SIZES, agreement, cpu_ms, head, scaled, speed as speed_row

AFFINE = {"degrees": 12.0, "scale": [1.1, 0.9], "translation_mm": [3.5, -2.8]}
COEFFICIENTS = (0.5 * (np.arange(20) * 37 % 21 - 10) / 10).tolist()
GAMMA = 0.8
STEPS = {
    "affine": {"affine_slices": {"slices": [AFFINE]}},
    "bias field": {"bias_field": {"order": 3, "coefficients": COEFFICIENTS}},
    "flip": {"flip": {"voxel_axes": [True, True, True]}},
    "gamma": {"gamma": {"gamma": GAMMA}},
}
ALL = {key: value for step in STEPS.values() for key, value in step.items()}
ALL["flip"] = {"voxel_axes": [True, False, False]}


def torchio(image, affine, draw, mask=None):
    """The drawn steps by TorchIO, on an image [z, y, x]; the mask too where there is one."""
    import torchio as tio
    subject = tio.Subject(image=tio.ScalarImage(tensor=np.ascontiguousarray(image.T)[None], affine=affine))
    if mask is not None:
        subject.add_image(tio.LabelMap(tensor=np.ascontiguousarray(mask.T)[None], affine=affine), "mask")
    if "affine_slices" in draw:
        p = draw["affine_slices"]["slices"][0]
        subject = tio.Affine(scales=[*p["scale"], 1.0], degrees=[0, 0, p["degrees"]],
                             translation=[*p["translation_mm"], 0.0])(subject)
    if "bias_field" in draw:
        subject = tio.BiasField(**draw["bias_field"])(subject)
    if "flip" in draw:
        subject = tio.Flip([i for i, flipped in enumerate(draw["flip"]["voxel_axes"]) if flipped])(subject)
    if "gamma" in draw:
        largest = subject.image.data.abs().max()
        subject.image.set_data(subject.image.data / largest)
        subject = tio.Gamma(draw["gamma"]["gamma"])(subject)
        subject.image.set_data(subject.image.data * largest)
    found = subject.image.data[0].numpy().T
    return (found, subject.mask.data[0].numpy().T) if mask is not None else found


def agree(work):
    rows = []
    for name, (shape, spacing) in {"61×50×12": ((61, 50, 12), (2.0, 1.5, 4.0)), **SIZES}.items():
        image, mask = head(shape)
        # World coordinates as TorchIO's centre has them must be exact in both, or borders fall to either side.
        affine = scaled(*spacing)
        for step, draw in {**STEPS, "all four": ALL}.items():
            found = work.run("augment", 0, draw, affine, image=image, mask=mask).images
            theirs, their_mask = torchio(image, affine, draw, mask)
            apart = np.abs(found["out"] - theirs).max() / np.abs(theirs).max()
            rows.append(agreement(step, "TorchIO", name, apart, 1e-4, "of the range"))
            if step in ("affine", "flip", "all four"):
                rows.append(agreement(f"{step}, mask", "TorchIO", name, (found["out_mask"] != their_mask).sum(), 0, "voxels"))
    return rows


def monai():
    """The same four steps in MONAI, on a tensor [1, x, y, z]."""
    import torch
    from monai.transforms import AdjustContrast, Affine, Flip, RandBiasField
    turned = Affine(rotate_params=[0, 0, np.radians(AFFINE["degrees"])], scale_params=[*AFFINE["scale"], 1.0],
                    translate_params=[*AFFINE["translation_mm"], 0.0], padding_mode="zeros", image_only=True)
    field = RandBiasField(degree=3, coeff_range=(-0.5, 0.5), prob=1.0)
    flip, contrast = Flip(spatial_axis=0), AdjustContrast(gamma=GAMMA)

    def run(tensor):
        with torch.no_grad():
            return contrast(flip(field(turned(tensor))))

    return run


def speed(work):
    import torch
    torch.set_num_threads(1)
    rows = []
    for name, (shape, spacing) in SIZES.items():
        image, _ = head(shape)
        affine = scaled(*spacing)
        # Read and written; per voxel: bilinear 9, field 3 multiplications and additions and an exponential of 15, contrast
        # a logarithm of 22, an exponential and 4.
        work_of = {"bytes": 8 * image.size, "operations": (9 + 6 + 15 + 22 + 15 + 4) * image.size}
        ours = work.run("augment", 3 * work.repeats, ALL, affine, image=image).cpu_ms
        tensor = torch.from_numpy(np.ascontiguousarray(image.T))[None]
        run = monai()
        run(tensor)
        rows.append(speed_row("augmentations, all four", "TorchIO", name, ours, cpu_ms(lambda: torchio(image, affine, ALL), 3),
                              50, **work_of))
        rows.append(speed_row("augmentations, all four", "MONAI", name, ours, cpu_ms(lambda: run(tensor), 5), 15, **work_of,
                              note="the limit is the bilinear step, four loads a voxel without vectors"))
        for step, draw in STEPS.items():
            draw = {"flip": {"voxel_axes": [True, False, False]}} if step == "flip" else draw
            ours = work.run("augment", 3 * work.repeats, draw, affine, image=image).cpu_ms
            rows.append(speed_row(step, "TorchIO", name, ours, cpu_ms(lambda: torchio(image, affine, draw), 3),
                                  bytes=8 * image.size))
    return rows


def ramp(shape):
    """A reproducible image [z, y, x] without symmetry; shape as (x, y, z)."""
    z, y, x = np.mgrid[:shape[2], :shape[1], :shape[0]]
    return ((x * 7 + y * 13 + z * 29) % 31 + 0.5 * x - 0.25 * y * z).astype("f4")


def numbers():
    image, affine = ramp((6, 5, 4)), scaled(2.0, 1.5, 4.0)
    moved = {"degrees": 12.0, "scale": [1.1, 0.9], "translation_mm": [1.5, -0.8]}
    print("affine", torchio(image, affine, {"affine_slices": {"slices": [moved]}})[2, 1])
    print("bias field", torchio(image, affine, STEPS["bias field"])[1, 2])


if __name__ == "__main__":
    numbers()
