//! The tables `splits`, `artifacts` and `models`: what steps made.

use super::{Lineage, row, words};

row! {
    /// The part of a split that a case was drawn into.
    #[derive(Default)]
    SplitRow of Splits with Lineage {
        /// The split: the name of its step.
        split: String, None;
        /// The case.
        case_id: String, None;
        /// The patient.
        subject_id: String, None;
        /// The part: `train`, `val`, `test` or another name from the pipeline.
        part: String, None;
        /// The SQL of the cohort that was split.
        query: String, None;
        /// The parameters of the split, as a JSON object. A later draw with the same ones keeps who was drawn.
        parameters: String, None;
    }
}

words! {
    /// What an artifact is.
    Role {
        /// An image after some stages.
        Image = "image",
        /// A JSON file beside another artifact.
        Sidecar = "sidecar",
        /// A brain mask.
        Brain = "brain",
        /// A bias field.
        Field = "field",
        /// A map of lesion probabilities.
        Probability = "probability",
        /// A predicted lesion mask.
        Prediction = "prediction",
        /// A file of training samples.
        Shard = "shard",
        /// One row of a shard.
        Sample = "sample",
    }
}

row! {
    /// A file, or a row of a shard, that a stage wrote. The file is published before the row is.
    #[derive(Default)]
    ArtifactRow of Artifacts with Lineage {
        /// The artifact's identifier.
        artifact_id: String, None;
        /// The step of the pipeline.
        step: String, None;
        /// The last stage that worked on it.
        stage: String, None;
        /// The case, where the artifact belongs to one.
        case_id: Option<String>, None;
        /// What the artifact is.
        role: Role, None;
        /// The file.
        uri: String, None;
        /// The row of the file, from 0, where the artifact is one row of a shard.
        row_index: Option<i64>, None;
        /// Size of the file.
        bytes: i64, Byte;
        /// blake3 of the file.
        blake3: String, None;
        /// The identifiers of the artifacts that it was made from; empty where it was made from the case's own files.
        parents: Vec<String>, None;
    }
}

row! {
    /// A trained model.
    #[derive(Default)]
    ModelRow of Models with Lineage {
        /// The model's identifier.
        model_id: String, None;
        /// The name: that of its step.
        name: String, None;
        /// The architecture of the network.
        architecture: String, None;
        /// The checkpoint file.
        uri: String, None;
        /// Size of the checkpoint file.
        bytes: i64, Byte;
        /// blake3 of the checkpoint file.
        blake3: String, None;
        /// The parameters of network and training, as a JSON object.
        parameters: String, None;
        /// Epochs trained.
        epochs: i64, One;
        /// The epoch whose weights were kept, from 1.
        best_epoch: i64, None;
        /// Mean Dice similarity coefficient on the validation cases at that epoch.
        best_val_dice: f64, One;
        /// Cases trained on.
        train_cases: i64, One;
        /// Cases validated on.
        val_cases: i64, One;
        /// The model whose weights it started from.
        parent: Option<String>, None;
        /// The identifiers of the shards, or other artifacts, that it was trained and validated on.
        parents: Vec<String>, None;
        /// The training curve, as a JSON list of objects with `epoch`, `train_loss`, `val_dice`, `learning_rate`,
        /// `seconds`, `samples_per_s`.
        curve: String, None;
    }
}
