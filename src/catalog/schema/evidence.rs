//! The tables `quality` and `scores`: what was measured on images and on predictions.

use super::{Lineage, row, words};

words! {
    /// What quality control says of a case.
    Verdict {
        /// Nothing to object to.
        Pass = "pass",
        /// Odd, but used.
        Warn = "warn",
        /// Not fit for use.
        Fail = "fail",
    }
}

row! {
    /// The quality-control metrics and verdict of one case. A metric is missing where the image does not define it,
    /// as for a constant image.
    #[derive(Default)]
    QualityRow of Quality with Lineage {
        /// The case.
        case_id: String, None;
        /// The step of the pipeline.
        step: String, None;
        /// `pass`, `warn` or `fail`.
        verdict: Verdict, None;
        /// Why the verdict is not `pass`.
        reasons: Vec<String>, None;
        /// Smallest finite intensity.
        intensity_min: Option<f64>, Intensity;
        /// Largest finite intensity.
        intensity_max: Option<f64>, Intensity;
        /// Share of voxels that are NaN or infinite.
        nonfinite_share: Option<f64>, One;
        /// Share of voxels below zero.
        negative_share: Option<f64>, One;
        /// Share of voxels at the largest intensity.
        clipped_share: Option<f64>, One;
        /// Share of voxels in the foreground.
        foreground_share: Option<f64>, One;
        /// Standard deviation of the noise.
        noise_sigma: Option<f64>, Intensity;
        /// Where the noise was measured: `air`, or `head` where there is no air.
        noise_source: Option<String>, None;
        /// Signal-to-noise ratio.
        snr: Option<f64>, One;
        /// Entropy focus criterion; smaller is sharper.
        efc: Option<f64>, One;
        /// Coefficient of joint variation of white and grey matter; smaller is better.
        cjv: Option<f64>, One;
        /// Ghost-to-signal ratio.
        ghost_to_signal_ratio: Option<f64>, One;
        /// Largest relative jump of the mean intensity between neighbouring slices.
        slice_jump_max: Option<f64>, One;
        /// Slices that lost their signal.
        dropout_slices: Option<i64>, One;
        /// Volume of the reference lesion mask.
        truth_volume_ml: Option<f64>, Millilitre;
        /// Share of the reference lesion mask outside the head.
        truth_outside_head_share: Option<f64>, One;
    }
}

row! {
    /// The scores of one prediction. A score is missing where it is not defined, as a distance to an empty mask;
    /// `empty_policy` says how empty masks were counted.
    #[derive(Default)]
    ScoreRow of Scores with Lineage {
        /// The case.
        case_id: String, None;
        /// The step of the pipeline.
        step: String, None;
        /// The model that predicted.
        model_id: Option<String>, None;
        /// Dice similarity coefficient.
        dice: Option<f64>, One;
        /// Voxel-wise sensitivity (recall).
        sensitivity: Option<f64>, One;
        /// Voxel-wise precision.
        precision: Option<f64>, One;
        /// Volume of the reference lesion mask.
        volume_truth_ml: f64, Millilitre;
        /// Volume of the predicted lesion mask.
        volume_predicted_ml: f64, Millilitre;
        /// Absolute difference of the two volumes.
        absolute_volume_difference_ml: f64, Millilitre;
        /// F1 score over lesions (26-connected components).
        lesion_f1: Option<f64>, One;
        /// Lesions in the reference mask.
        lesion_count_truth: i64, One;
        /// Lesions in the predicted mask.
        lesion_count_predicted: i64, One;
        /// Absolute difference of the two counts.
        lesion_count_difference: i64, One;
        /// 95th percentile of the Hausdorff distance.
        hd95_mm: Option<f64>, Millimetre;
        /// Average symmetric surface distance.
        assd_mm: Option<f64>, Millimetre;
        /// How empty masks were counted.
        empty_policy: String, None;
    }
}
