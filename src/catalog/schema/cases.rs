//! The table `cases`: what was ingested.

use super::{Timestamp, row};

row! {
    /// One case as it was ingested. Made from files alone: the same files give the same row, but for `run_id` and
    /// `ingested_at`.
    #[derive(Default)]
    CaseRow of Cases {
        /// The case's identifier: `sub-XXX` or `sub-XXX_ses-YYY`.
        case_id: String, None;
        /// The registry that the case was ingested from.
        source: String, None;
        /// The patient; every case of a patient falls into the same part of a split.
        subject_id: String, None;
        /// The session, where the registry has sessions.
        session_id: Option<String>, None;
        /// The hospital or scanner site.
        centre: Option<String>, None;
        /// The file of the diffusion-weighted image; none where the case was ingested by its metadata only.
        image_uri: Option<String>, None;
        /// The volume of that file that is the diffusion-weighted image, from 0.
        image_volume: i64, None;
        /// The file of the image without diffusion weighting.
        b0_uri: Option<String>, None;
        /// The volume of that file that is the b = 0 image, from 0.
        b0_volume: Option<i64>, None;
        /// The file of the map of apparent diffusion coefficients.
        adc_uri: Option<String>, None;
        /// The file of the FLAIR image.
        flair_uri: Option<String>, None;
        /// The file of the reference lesion mask.
        truth_uri: Option<String>, None;
        /// Voxels along the first axis of the image file.
        shape_x: Option<i64>, Voxel;
        /// Voxels along the second axis of the image file.
        shape_y: Option<i64>, Voxel;
        /// Voxels along the third axis of the image file.
        shape_z: Option<i64>, Voxel;
        /// Volumes in the image file.
        volumes: Option<i64>, One;
        /// Distance of neighbouring voxel centres along the first axis.
        spacing_x_mm: Option<f64>, Millimetre;
        /// Distance of neighbouring voxel centres along the second axis.
        spacing_y_mm: Option<f64>, Millimetre;
        /// Distance of neighbouring voxel centres along the third axis.
        spacing_z_mm: Option<f64>, Millimetre;
        /// The data type of the voxels in the image file.
        datatype: Option<String>, None;
        /// Voxel → world (RAS+, mm), three rows of four numbers, row by row; empty where there is no image.
        affine: Vec<f64>, None;
        /// Diffusion weighting of the image.
        b_value_s_per_mm2: Option<f64>, SecondPerSquareMillimetre;
        /// The maker of the scanner.
        vendor: Option<String>, None;
        /// The model of the scanner.
        model: Option<String>, None;
        /// Strength of the main magnetic field.
        field_strength_t: Option<f64>, Tesla;
        /// Repetition time of the sequence.
        repetition_time_ms: Option<f64>, Millisecond;
        /// Echo time of the sequence.
        echo_time_ms: Option<f64>, Millisecond;
        /// Thickness of a slice.
        slice_thickness_mm: Option<f64>, Millimetre;
        /// Gap between slices.
        slice_gap_mm: Option<f64>, Millimetre;
        /// Age of the patient at the scan.
        age_y: Option<f64>, Year;
        /// Sex of the patient, as the registry writes it.
        sex: Option<String>, None;
        /// Stroke severity: the National Institutes of Health Stroke Scale, 0 to 42.
        nihss: Option<f64>, One;
        /// Cause of the stroke, as the registry writes it.
        stroke_subtype: Option<String>, None;
        /// Time from stroke onset to the scan.
        onset_h: Option<f64>, Hour;
        /// Place of the lesion, as the registry writes it.
        location: Option<String>, None;
        /// Whether the patient has an older infarct.
        chronic_infarct: Option<bool>, None;
        /// Volume of white-matter hyperintensities.
        wmh_volume_ml: Option<f64>, Millilitre;
        /// Volume of the reference lesion mask.
        truth_volume_ml: Option<f64>, Millilitre;
        /// Every other column of the participants table, as a JSON object.
        variables: String, None;
        /// What was odd about the case but did not exclude it.
        findings: Vec<String>, None;
        /// Size of the image file.
        image_bytes: Option<i64>, Byte;
        /// blake3 of the image file.
        image_blake3: Option<String>, None;
        /// blake3 of the file of the reference lesion mask.
        truth_blake3: Option<String>, None;
        /// The files that were read, as a JSON list of objects with `uri`, `bytes`, `modified_us`, `blake3`.
        files: String, None;
        /// blake3 over the bytes of image, b = 0 image and mask, and the choice of volumes; without an image, over the identifier.
        fingerprint: String, None;
        /// The run that last changed the row.
        run_id: String, None;
        /// When the row last changed.
        ingested_at: Timestamp, MicrosecondUtc;
        /// When an ingest missed the files of the case; none while they are there. No step takes such a case.
        removed_at: Option<Timestamp>, MicrosecondUtc;
    }
}
