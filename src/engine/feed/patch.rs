//! Patches of samples: where they lie, and cutting them out.
//!
//! Infarcts fill a thousandth of a head. A patch drawn anywhere rarely holds any, so a share of the patches is centred on a
//! voxel of the lesion, each as likely as the other (as in nnU-Net, which oversamples a third of a batch).

use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::imaging::random::{below, chance};

/// What is cut out of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Voxels along x, y, z.
    pub shape: [usize; 3],
    /// Share of the patches, 0 to 1, that are centred on a voxel of the lesion, as far as the sample's border allows; a sample
    /// without a lesion has none.
    pub lesion_share: f64,
}

impl Patch {
    /// Refuses a patch that does not fit into samples of shape channels, z, y, x.
    pub(super) fn check(&self, [_, z, y, x]: [usize; 4]) -> Result<()> {
        let fits = self.shape.iter().zip([x, y, z]).all(|(patch, all)| (1..=all).contains(patch));
        if fits {
            return Ok(());
        }
        Err(Error::configuration(format!(
            "patch is {:?} voxels, the samples have {:?} (x, y, z)",
            self.shape,
            [x, y, z]
        ))
        .hint("make the patch smaller, or leave it out to train on whole samples"))
    }

    /// Draws a patch of a sample of shape channels, z, y, x and copies it: images and truths of the sample to those of the
    /// patch.
    pub(super) fn cut(
        &self,
        rng: &mut ChaCha8Rng,
        [channels, z, y, x]: [usize; 4],
        (images, truths): (&[f32], &[u8]),
        (to_images, to_truths): (&mut [f32], &mut [u8]),
    ) {
        let size = [z, y, x];
        let origin = self.origin(rng, size, truths);
        let voxels = z * y * x;
        let patch = to_truths.len();
        for channel in 0..channels {
            let from = &images[channel * voxels..][..voxels];
            self.copy(size, origin, from, &mut to_images[channel * patch..][..patch]);
        }
        self.copy(size, origin, truths, to_truths);
    }

    /// The patch's first voxel along z, y, x.
    fn origin(&self, rng: &mut ChaCha8Rng, size: [usize; 3], truths: &[u8]) -> [usize; 3] {
        let [x, y, z] = self.shape;
        let patch = [z, y, x];
        let anywhere: [usize; 3] =
            std::array::from_fn(|a| below(rng, (size[a] - patch[a] + 1) as u64) as usize);
        if !chance(rng, self.lesion_share) {
            return anywhere;
        }
        let lesion = truths.iter().filter(|t| **t > 0).count();
        let chosen = below(rng, lesion as u64) as usize;
        let Some((at, _)) = truths.iter().enumerate().filter(|(_, t)| **t > 0).nth(chosen) else {
            return anywhere;
        };
        let centre = [at / (size[1] * size[2]), at / size[2] % size[1], at % size[2]];
        std::array::from_fn(|a| centre[a].saturating_sub(patch[a] / 2).min(size[a] - patch[a]))
    }

    fn copy<T: Copy>(&self, size: [usize; 3], origin: [usize; 3], from: &[T], to: &mut [T]) {
        let [width, height, _] = self.shape;
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let (z, y) = (origin[0] + row / height, origin[1] + row % height);
            let start = (z * size[1] + y) * size[2] + origin[2];
            to.copy_from_slice(&from[start..start + width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::random::keyed;

    const SHAPE: [usize; 4] = [2, 5, 6, 7];
    const VOXELS: usize = 5 * 6 * 7;

    fn sample(lesion: Option<usize>) -> (Vec<f32>, Vec<u8>) {
        let images = (0..2 * VOXELS).map(|v| v as f32).collect();
        (images, (0..VOXELS).map(|v| u8::from(Some(v) == lesion)).collect())
    }

    fn cut(patch: &Patch, draw: usize, lesion: Option<usize>) -> (Vec<f32>, Vec<u8>) {
        let (images, truths) = sample(lesion);
        let voxels = patch.shape.iter().product();
        let (mut to_images, mut to_truths) = (vec![0.0; 2 * voxels], vec![0; voxels]);
        let mut rng = keyed(3, &["patch", &draw.to_string()]);
        patch.cut(&mut rng, SHAPE, (&images, &truths), (&mut to_images, &mut to_truths));
        (to_images, to_truths)
    }

    #[test]
    fn a_patch_as_large_as_the_sample_is_the_sample() {
        let patch = Patch { shape: [7, 6, 5], lesion_share: 0.5 };
        for draw in 0..4 {
            assert_eq!(cut(&patch, draw, Some(9)), sample(Some(9)));
        }
    }

    #[test]
    fn a_patch_is_a_box_of_all_channels() {
        let patch = Patch { shape: [3, 2, 2], lesion_share: 0.0 };
        let mut origins = std::collections::BTreeSet::new();
        for draw in 0..2000 {
            let (images, _) = cut(&patch, draw, None);
            let first = images[0] as usize;
            let at = |z: usize, y: usize, x: usize| (first + z * 42 + y * 7 + x) as f32;
            assert_eq!(images[..4], [at(0, 0, 0), at(0, 0, 1), at(0, 0, 2), at(0, 1, 0)]);
            assert_eq!(images[11].to_bits(), at(1, 1, 2).to_bits());
            assert_eq!(images[12].to_bits(), (images[0] + VOXELS as f32).to_bits());
            origins.insert(first);
        }
        // 4 × 5 × 5 places, all of them drawn.
        assert_eq!(origins.len(), 100);
    }

    #[test]
    fn lesions_are_met_as_often_as_asked() {
        let met = |lesion_share, lesion| {
            let patch = Patch { shape: [1, 1, 1], lesion_share };
            (0..1000).filter(|draw| cut(&patch, *draw, lesion).1 == [1]).count()
        };
        assert_eq!(met(1.0, Some(0)), 1000);
        assert_eq!(met(1.0, Some(VOXELS - 1)), 1000);
        assert!((450..550).contains(&met(0.5, Some(100))), "{}", met(0.5, Some(100)));
        assert!(met(0.0, Some(100)) < 20);
        assert_eq!(met(1.0, None), 0);
    }

    #[test]
    fn a_patch_that_does_not_fit_is_refused() {
        let check = |shape| Patch { shape, lesion_share: 0.5 }.check(SHAPE);
        assert!(check([7, 6, 5]).is_ok());
        let reason = check([8, 6, 5]).err().map(|e| e.reason().to_owned()).unwrap_or_default();
        assert_eq!(reason, "patch is [8, 6, 5] voxels, the samples have [7, 6, 5] (x, y, z)");
        assert!(check([0, 6, 5]).is_err());
    }
}
