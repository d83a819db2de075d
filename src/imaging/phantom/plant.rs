//! Planting: which voxels a lesion takes, and how its edges mix with the tissue around it.

use super::lesions::{Kind, Lesion};
use super::tissue::{Palette, Tissue};
use super::{Fields, Locator};

/// Paints a lesion and returns the indices of its voxels, in memory order of what was looked at.
///
/// The lesion takes the voxels of tissue (white matter for hyperintensities) with the highest levels until its
/// volume is reached, an infarct one at least; voxels just beyond take a share that falls to nothing over one
/// voxel.
pub(super) fn plant(
    fields: &mut Fields,
    locator: &Locator<'_>,
    lesion: &Lesion,
    palette: &Palette,
) -> Vec<u32> {
    let mut candidates = levels(fields, locator, lesion);
    let wanted = lesion.volume_ml * 1000.0 / locator.grid.voxel_volume_mm3().max(1e-9);
    let least = usize::from(lesion.kind == Kind::Acute);
    let n = (wanted.round() as usize).max(least).min(candidates.len());
    if n == 0 {
        return Vec::new();
    }
    // Equal levels are told apart by their place, so that the choice is unique.
    let (_, last, _) =
        candidates.select_nth_unstable_by(n - 1, |a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
    let threshold = last.0;
    let mean = 0.5 * (palette.of(Tissue::White)[0] + palette.of(Tissue::Grey)[0]);
    let b0 = mean * lesion.b0_gain as f32;
    let dwi = palette.weighted(b0, lesion.adc_mm2_per_s);
    let width = fields.half_mm * lesion.shape.steepness();
    let cells = [
        fields.b0.as_slice_mut().unwrap_or_default(),
        fields.dwi.as_slice_mut().unwrap_or_default(),
    ];
    let tissue = fields.tissue.as_slice().unwrap_or_default();
    let [b0_cells, dwi_cells] = cells;
    for &(level, mottle, index) in &candidates {
        let i = index as usize;
        let edge = (0.6 + 0.5 * (level - threshold) / width.max(1e-6)).clamp(0.0, 1.0);
        let share = edge * tissue[i];
        b0_cells[i] += share * (mottle * b0 - b0_cells[i]);
        dwi_cells[i] += share * (mottle * dwi - dwi_cells[i]);
    }
    candidates.truncate(n);
    candidates.into_iter().map(|(_, _, i)| i).collect()
}

/// Level and mottle of the lesion in every voxel that may hold it, with the voxel's index.
fn levels(fields: &Fields, locator: &Locator<'_>, lesion: &Lesion) -> Vec<(f32, f32, u32)> {
    let share = match lesion.kind {
        Kind::Acute | Kind::Chronic => &fields.tissue,
        Kind::Hyperintensity => &fields.white,
    };
    let share = share.as_slice().unwrap_or_default();
    let [nx, ny, _] = locator.grid.shape;
    let spread_mm = locator.grid.affine.spacing_mm().iter().copied().fold(0.0, f64::max) as f32;
    let [xs, ys, zs] = bounds(locator, lesion);
    let mut candidates = Vec::new();
    for (z, y) in zs.flat_map(|z| ys.clone().map(move |y| (z, y))) {
        let row = locator.row(y as f64, z as f64);
        for x in xs.clone() {
            let i = (z * ny + y) * nx + x;
            if share[i] <= 0.5 {
                continue;
            }
            let p = locator.at(row, x);
            let level = lesion.shape.level(p, spread_mm);
            if level > -5.0 {
                candidates.push((level, lesion.shape.mottle(p), i as u32));
            }
        }
    }
    candidates
}

/// Ranges of x, y and z that hold the lesion; the whole grid where the affine cannot be inverted.
fn bounds(locator: &Locator<'_>, lesion: &Lesion) -> [std::ops::Range<usize>; 3] {
    let shape = locator.grid.shape;
    let Ok(inverse) = locator.to_atlas.inverse() else {
        return shape.map(|n| 0..n);
    };
    let (centre, half) = lesion.shape.bounds();
    let middle = inverse.apply(centre);
    [0, 1, 2].map(|a| {
        let reach: f64 = (0..3).map(|c| inverse.0[a][c].abs() * half[c]).sum::<f64>() + 1.0;
        let low = (middle[a] - reach).floor().clamp(0.0, shape[a] as f64) as usize;
        let high = (middle[a] + reach).ceil().clamp(0.0, shape[a] as f64) as usize;
        low..high.max(low)
    })
}
