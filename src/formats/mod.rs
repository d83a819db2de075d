//! The files Torcula reads and writes: NIfTI images, BIDS folders, manifests, training shards, event files of TensorBoard.
//!
//! Only this module opens data files. Everything in it treats its input as hostile: sizes are checked against what a
//! file can hold before memory is reserved, links do not lead out of a folder, and every refusal says why. [`limits`] lists
//! how much is believed of an input, and [`privacy`] what of it is told.

pub mod bids;
pub mod cases;
pub mod files;
pub mod gradients;
pub mod limits;
pub mod manifest;
mod mapped;
pub mod nifti;
mod parquet;
pub mod privacy;
pub mod quiet;
pub mod safetensors;
pub mod shards;
pub mod sidecar;
mod table;
pub mod tensorboard;
