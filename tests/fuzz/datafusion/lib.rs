//! Parquet under the name by which DataFusion passes it on.
pub use parquet;
