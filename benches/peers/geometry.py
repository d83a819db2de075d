"""NumPy, SciPy and SimpleITK beside the kernels of src/imaging: the literal numbers of their tests, and times.

    python benches/peers/geometry.py numbers    every number quoted in the tests, in their order
    python benches/peers/geometry.py times      the same work as `cargo bench --bench geometry`: CPU time, one thread

Needs numpy, scipy and SimpleITK.
"""
import sys
import time

import numpy as np
import SimpleITK as sitk
from scipy import ndimage as nd

np.set_printoptions(precision=8, suppress=True, linewidth=110)


def score(a, b, spacing):
    """Dice, sensitivity, precision, lesion F1, HD95, ASSD of two masks [z, y, x]; spacing in the same order."""
    full = np.ones((3, 3, 3))
    (la, na), (lb, nb) = nd.label(a, full), nd.label(b, full)
    tp, fn = len(set(la[b & (la > 0)])), na - len(set(la[b & (la > 0)]))
    fp = nb - len(set(lb[a & (lb > 0)]))
    sa, sb = (m & ~nd.binary_erosion(m, border_value=0) for m in (a, b))
    da, db = nd.distance_transform_edt(~sb, spacing)[sa], nd.distance_transform_edt(~sa, spacing)[sb]
    both = (a & b).sum()
    return np.array([2 * both / (a.sum() + b.sum()), both / a.sum(), both / b.sum(), 2 * tp / (2 * tp + fn + fp),
                     max(np.percentile(da, 95), np.percentile(db, 95)), np.r_[da, db].mean()])


def boxes(shape, *corners):
    """A mask [z, y, x] with boxes given as (x, y, z) of the first voxel and of the one past the last."""
    m = np.zeros(shape[::-1], bool)
    for (x0, y0, z0), (x1, y1, z1) in corners:
        m[z0:z1, y0:y1, x0:x1] = True
    return m


def ramp(shape):
    """A reproducible image [z, y, x] without symmetry; shape as (x, y, z)."""
    z, y, x = np.mgrid[:shape[2], :shape[1], :shape[0]]
    return ((x * 7 + y * 13 + z * 29) % 31 + 0.5 * x - 0.25 * y * z).astype(np.float32)


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


def numbers():
    m = np.zeros((3, 4, 5), bool)
    m[0, 0, 0] = m[2, 3, 2] = True
    print('distance', nd.distance_transform_edt(~m, (4.0, 2.5, 1.5))[1, :, [0, 4]].T.tolist())
    t = boxes((9, 8, 7), ([1, 1, 1], [4, 4, 3]), ([6, 6, 4], [9, 8, 7]), ([0, 6, 0], [1, 7, 1]))
    p = boxes((9, 8, 7), ([2, 1, 1], [6, 3, 4]), ([7, 6, 5], [9, 8, 7]), ([5, 0, 6], [6, 1, 7]))
    print('score', score(t, p, (4.0, 2.0, 1.5)))
    resample_numbers()
    augment_numbers()


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


def bias_field(shape, order, coefficients):
    """TorchIO's generate_bias_field (torchio 0.20), in NumPy; the field is [x, y, z] as there."""
    half = np.array(shape) / 2
    meshes = np.asarray(np.meshgrid(*[np.arange(-n, n) + 0.5 for n in half], indexing='ij'))
    for mesh in meshes:
        if mesh.max() > 0:
            mesh /= mesh.max()
    x, y, z = meshes
    total, i = np.zeros(shape), 0
    for a in range(order + 1):
        for b in range(order + 1 - a):
            for c in range(order + 1 - (a + b)):
                total += coefficients[i] * x**a * y**b * z**c
                i += 1
    return np.exp(total)


def affine_slices(image, spacing, degrees, scale, translation):
    """Bilinear in-plane affine of one slice [y, x] by SimpleITK; spacing, scale and translation as (x, y)."""
    slice_ = sitk.GetImageFromArray(image)
    slice_.SetSpacing(spacing)
    centre = [0.5 * (n - 1) * s for n, s in zip(slice_.GetSize(), spacing)]
    scaling = sitk.ScaleTransform(2, scale)
    scaling.SetCenter(centre)
    turn = sitk.Euler2DTransform(centre, np.radians(degrees), translation)
    pull = sitk.CompositeTransform([turn, scaling]).GetInverse()  # the last one of the list comes first
    return sitk.GetArrayFromImage(sitk.Resample(slice_, slice_, pull, sitk.sitkLinear, -100.0))


def augment_numbers():
    image = ramp((6, 5, 4))
    coefficients = 0.5 * (np.arange(20) * 37 % 21 - 10) / 10
    field = bias_field((6, 5, 4), 3, coefficients).transpose(2, 1, 0)
    print('bias field', (image * field)[1, 2])
    print('affine slices', affine_slices(image[2], (2.0, 1.5), 12.0, (1.1, 0.9), (1.5, -0.8))[1], image.min())
    print('efc', repr(efc(ramp((6, 5, 4)).astype(np.float64) + 1.0)))


def efc(img):
    """MRIQC's entropy focus criterion (mriqc.qc.anatomical.efc, 23.1) without a frame mask."""
    n_vox = img.size
    efc_max = 1.0 * n_vox * (1.0 / np.sqrt(n_vox)) * np.log(1.0 / np.sqrt(n_vox))
    b_max = np.sqrt((img.astype(np.float64)**2).sum())
    return float((1.0 / efc_max) * np.sum((img / b_max) * np.log((img + 1e-16) / b_max)))


def best(work, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1000


def bench_image(shape):
    """`image` of benches/geometry.rs, [z, y, x]; shape as (x, y, z)."""
    z, y, x = np.mgrid[:shape[2], :shape[1], :shape[0]].astype(np.float64)
    r2 = sum(((i - 0.5 * n) / (0.5 * n))**2 for i, n in zip((x, y, z), shape))
    wave = np.sin(x * 0.7) * np.cos(y * 0.4) * np.sin(z * 0.9)
    return np.where(r2 < 0.64, 500 + 100 * wave, 10 + 5 * wave).astype(np.float32)


def bench_lesions(shape, shift):
    """`lesions` of benches/geometry.rs."""
    z, y, x = np.mgrid[:shape[2], :shape[1], :shape[0]]
    x = x + shift
    d2 = sum((i % 44 - 22.0)**2 for i in (x, y, z))
    return d2 <= (3.0 + (x // 44 + y // 44 + z // 44) % 7)**2


def times():
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    shape, spacing = (256, 256, 30), np.diag([0.9, 0.9, 5.0])
    image = to_sitk(bench_image(shape), affine(spacing, [0, 0, 0]))
    for name, turn in (('aligned', np.eye(3)), ('oblique', rotation(2, 11.459))):
        target = to_sitk(np.zeros((24, 96, 96), np.float32),
                         affine(turn @ np.diag([2.0, 2.0, 5.0]), [19.75, 19.75, 15.0]))
        work = lambda: sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, 0.0)
        print(f'SimpleITK Resample, {name:8} {best(work):8.2f} ms')
    a, b = bench_lesions((157, 189, 136), 0), bench_lesions((157, 189, 136), 3)
    print(f'SciPy distance_transform_edt {best(lambda: nd.distance_transform_edt(~a), 3):8.2f} ms')
    print(f'SciPy and NumPy score        {best(lambda: score(a, b, (1.0, 1.0, 1.0)), 3):8.2f} ms')
    sample = bench_image((96, 96, 24))
    field = lambda: sample * bias_field((96, 96, 24), 3, np.full(20, 0.1)).transpose(2, 1, 0)
    print(f'NumPy (TorchIO) bias field   {best(field):8.2f} ms')
    print(f'NumPy gamma                  {best(lambda: np.sign(sample) * np.abs(sample)**0.8):8.2f} ms')
    turned = lambda: [affine_slices(s, (2.0, 2.0), 7.0, (1.05, 0.95), (0.0, 0.0)) for s in sample]
    print(f'SimpleITK affine of slices   {best(turned):8.2f} ms')


if __name__ == '__main__':
    {'numbers': numbers, 'times': times}[sys.argv[1]]()
