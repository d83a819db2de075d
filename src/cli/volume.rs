//! Which volume of a 4-D image a command works on.

use std::path::Path;

use super::output;
use crate::error::{Error, Result};
use crate::formats::{gradients, nifti};

/// The volume asked for, counted from 0; otherwise the only one, or the diffusion-weighted one as an ingest chooses it: by the
/// `.bval` file beside the image.
///
/// # Errors
/// A configuration fault where there are several volumes and no `.bval` file.
pub fn chosen(input: &Path, asked: Option<usize>) -> Result<usize> {
    if let Some(volume) = asked {
        return Ok(volume);
    }
    let volumes = nifti::read_header(input)?.volumes();
    if volumes == 1 {
        return Ok(0);
    }
    let name = input.to_string_lossy();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let beside = Path::new(stem).with_extension("bval");
    if !beside.is_file() {
        let found = format!("{name}: {volumes} volumes and no {}", beside.display());
        return Err(Error::configuration(found).hint("say which one with --volume N, from 0"));
    }
    let chosen = gradients::select(&gradients::read_bvals(&beside, volumes)?)?;
    let (volume, b) = (chosen.dwi, chosen.b_value_s_per_mm2);
    output::note(format!("{name}: volume {volume} of {volumes}, b = {b} s/mm²"));
    Ok(volume)
}
