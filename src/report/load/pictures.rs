//! Reads the few images that the page shows. What cannot be read is told in place of the picture.

use crate::error::Result;
use crate::formats::{nifti, privacy};
use crate::report::blocking;
use crate::report::data::Picture;
use crate::report::montage;
use crate::report::reasons::without_folder;
use crate::volume::Image;

/// An image file and the volume of it.
#[derive(Debug, Clone)]
pub struct ImageAt {
    /// The file.
    pub uri: String,
    /// The volume, from 0.
    pub volume: i64,
}

impl ImageAt {
    fn read(&self) -> Result<Image> {
        let volume = usize::try_from(self.volume).unwrap_or(0);
        privacy::open(&self.uri, |path| Ok(nifti::read_image(path, volume)?.0))
    }
}

/// The files of a scored case.
#[derive(Debug, Clone)]
pub struct CaseFiles {
    /// The prepared image, where there is one; it is shown where it lies on the grid of the truth.
    pub prepared: Option<ImageAt>,
    /// The case's own image.
    pub image: ImageAt,
    /// The reference mask.
    pub truth: String,
    /// The predicted mask.
    pub prediction: String,
}

/// A slice of an image, or why there is none.
pub async fn thumbnail(image: ImageAt) -> Result<Picture, String> {
    let made = blocking(move || montage::thumbnail(&image.read()?)).await;
    made.and_then(|picture| picture).map_err(|e| told(e.reason()))
}

/// The slices of a case, or why there are none.
pub async fn slices(case: CaseFiles) -> Result<Vec<Picture>, String> {
    blocking(move || draw(&case)).await.and_then(|slices| slices).map_err(|e| told(e.reason()))
}

fn draw(case: &CaseFiles) -> Result<Vec<Picture>> {
    let mask = |uri: &str| privacy::open(uri, |path| Ok(nifti::read_mask(path)?.0));
    let (truth, prediction) = (mask(&case.truth)?, mask(&case.prediction)?);
    let prepared = case.prepared.as_ref().and_then(|image| image.read().ok());
    let image = match prepared.filter(|image| image.grid().shape == truth.grid().shape) {
        Some(prepared) => prepared,
        None => case.image.read()?,
    };
    montage::montage(&image, &truth, &prediction)
}

/// A reason without the folders of the machine: a report goes to readers who have no use for them.
fn told(reason: &str) -> String {
    reason.split(' ').map(without_folder).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_without_folders() {
        assert_eq!(told("/data/a/sub-1.nii: 3 / 4 bytes"), "sub-1.nii: 3 / 4 bytes");
    }
}
