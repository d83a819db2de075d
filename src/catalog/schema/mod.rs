//! What the tables hold. One macro call a table names each column once: its meaning, Rust type and unit. From it come
//! the row struct, the Arrow schema with units in the field metadata, the Delta table and the file in `schemas/`.

mod cases;
mod curation;
mod docs;
mod evidence;
mod products;
mod runs;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Serialize;

pub use cases::CaseRow;
pub use curation::{CurationRow, EditAction};
pub use docs::{schema_file, schema_json};
pub use evidence::{QualityRow, ScoreRow, Verdict};
pub use products::{ArtifactRow, ModelRow, Role, SplitRow};
pub use runs::{FailureRow, RunRow, RunStatus};

use super::Timestamp;
use crate::error::{Error, Fault, Result};
use crate::units::Unit;

/// The tables of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row a case.
    Cases,
    /// One row a case and quality-control step.
    Quality,
    /// One row a case and split.
    Splits,
    /// One row a file (or row of a shard) that a stage wrote.
    Artifacts,
    /// One row a run.
    Runs,
    /// One row a quarantined case and run.
    Failures,
    /// One row a trained model.
    Models,
    /// One row a scored prediction.
    Scores,
    /// One row an edit by a person.
    Curation,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 9] = [
        Self::Cases,
        Self::Quality,
        Self::Splits,
        Self::Artifacts,
        Self::Runs,
        Self::Failures,
        Self::Models,
        Self::Scores,
        Self::Curation,
    ];

    /// The name in SQL, and of the sub-folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cases => "cases",
            Self::Quality => "quality",
            Self::Splits => "splits",
            Self::Artifacts => "artifacts",
            Self::Runs => "runs",
            Self::Failures => "failures",
            Self::Models => "models",
            Self::Scores => "scores",
            Self::Curation => "curation",
        }
    }

    /// What one row stands for.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Cases => "one row a case: one DWI study of one patient, as it was ingested",
            Self::Quality => "one row a case and quality-control step: the metrics and the verdict",
            Self::Splits => {
                "one row a case and part of a split; nested subsamples hold a case several times"
            }
            Self::Artifacts => "one row a file, or a row of a shard, that a stage wrote",
            Self::Runs => "one row a run: one execution of a pipeline",
            Self::Failures => "one row a case that a run quarantined, with the reason",
            Self::Models => "one row a trained model",
            Self::Scores => "one row a prediction compared with its truth",
            Self::Curation => {
                "one row an edit of a case by a person; applied wherever cases is read"
            }
        }
    }

    /// The columns that tell rows apart, most selective first. File statistics are kept for these alone.
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Cases => &["case_id"],
            Self::Quality | Self::Scores => &["case_id", "step", "fingerprint"],
            Self::Splits => &["split", "case_id"],
            Self::Artifacts => &["artifact_id", "step", "fingerprint"],
            Self::Runs => &["run_id"],
            Self::Failures => &["run_id", "case_id", "step", "stage"],
            Self::Models => &["model_id"],
            Self::Curation => &["edit_id", "case_id"],
        }
    }

    /// The columns in their stored order.
    pub fn columns(self) -> &'static [Column] {
        &self.definition().columns
    }

    /// The Arrow schema. Each field's metadata holds `unit` (where it has one) and `meaning`.
    pub fn arrow_schema(self) -> SchemaRef {
        Arc::clone(&self.definition().schema)
    }

    /// The column of this name.
    pub fn column(self, name: &str) -> Option<&'static Column> {
        self.columns().iter().find(|column| column.name == name)
    }

    fn definition(self) -> &'static Definition {
        static ALL: LazyLock<[Definition; Table::ALL.len()]> =
            LazyLock::new(|| Table::ALL.map(Definition::new));
        &ALL[self as usize]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Table {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::configuration(format!("there is no table '{name}'"))
                .hint(format!("the tables are {names}"))
        })
    }
}

struct Definition {
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl Definition {
    fn new(table: Table) -> Self {
        let columns = match table {
            Table::Cases => CaseRow::columns(),
            Table::Quality => QualityRow::columns(),
            Table::Splits => SplitRow::columns(),
            Table::Artifacts => ArtifactRow::columns(),
            Table::Runs => RunRow::columns(),
            Table::Failures => FailureRow::columns(),
            Table::Models => ModelRow::columns(),
            Table::Scores => ScoreRow::columns(),
            Table::Curation => CurationRow::columns(),
        };
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        Self { columns, schema }
    }
}

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The name; a quantity's name ends in its unit.
    pub name: &'static str,
    /// The type of its values.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// What a value says.
    pub meaning: &'static str,
}

impl Column {
    fn field(&self) -> Field {
        let mut metadata = HashMap::from([("meaning".to_owned(), self.meaning.to_owned())]);
        if self.unit != Unit::None {
            metadata.insert("unit".to_owned(), self.unit.symbol().to_owned());
        }
        Field::new(self.name, self.kind.arrow(), self.nullable).with_metadata(metadata)
    }
}

/// The types that columns have. Delta Lake stores each of them without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Signed 64-bit integers.
    Integer,
    /// 64-bit floating point.
    Real,
    /// True or false.
    Boolean,
    /// Moments in microseconds, UTC.
    Moment,
    /// Lists of text.
    TextList,
    /// Lists of 64-bit floating point.
    RealList,
}

impl Kind {
    /// The Arrow type.
    pub fn arrow(self) -> DataType {
        let list = |item| DataType::List(Arc::new(Field::new("element", item, false)));
        match self {
            Self::Text => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Real => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Moment => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::TextList => list(DataType::Utf8),
            Self::RealList => list(DataType::Float64),
        }
    }

    /// The name in `schemas/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "Utf8",
            Self::Integer => "Int64",
            Self::Real => "Float64",
            Self::Boolean => "Boolean",
            Self::Moment => "Timestamp(Microsecond, UTC)",
            Self::TextList => "List<Utf8>",
            Self::RealList => "List<Float64>",
        }
    }
}

/// A row of a table. Serialising it gives an object with one key a column.
pub trait TableRow: Serialize {
    /// The table that the row belongs to.
    const TABLE: Table;
}

/// A Rust type that a column can hold.
trait Cell {
    const KIND: Kind;
    const NULLABLE: bool = false;
}

macro_rules! cells {
    ($($type:ty => $kind:ident),+ $(,)?) => {
        $(impl Cell for $type { const KIND: Kind = Kind::$kind; })+
    };
}

cells! {
    String => Text,
    Fault => Text,
    i64 => Integer,
    f64 => Real,
    bool => Boolean,
    Timestamp => Moment,
    Vec<String> => TextList,
    Vec<f64> => RealList,
}

impl<T: Cell> Cell for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;
}

/// Defines a closed set of words as an enum that a text column holds. The first is the default.
macro_rules! words {
    (
        $(#[$outer:meta])*
        $name:ident {
            $(#[$first_doc:meta])+ $first:ident = $first_word:literal,
            $($(#[$doc:meta])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(#[$first_doc])+
            #[default]
            #[serde(rename = $first_word)]
            $first,
            $($(#[$doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word stored in the table.
            pub const fn name(self) -> &'static str {
                match self { Self::$first => $first_word, $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl $crate::catalog::schema::Cell for $name {
            const KIND: $crate::catalog::schema::Kind = $crate::catalog::schema::Kind::Text;
        }
    };
}
use words;

/// Defines a row struct and its columns. Each column's doc comment is its meaning; `with Lineage` adds the columns of
/// [`Lineage`] at the end.
macro_rules! row {
    (
        $(#[$outer:meta])*
        $row:ident $(of $table:ident)? $(with $lineage:ident)? {
            $($(#[doc = $meaning:literal])+ $name:ident: $type:ty, $unit:ident;)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $row {
            $($(#[doc = $meaning])+ pub $name: $type,)+
            $(
                /// Where the row came from.
                #[serde(flatten)]
                pub lineage: $lineage,
            )?
        }

        $(impl $crate::catalog::schema::TableRow for $row {
            const TABLE: $crate::catalog::schema::Table = $crate::catalog::schema::Table::$table;
        })?

        impl $row {
            pub(in $crate::catalog::schema) fn columns() -> Vec<$crate::catalog::schema::Column> {
                use $crate::catalog::schema::{Cell, Column};
                let own = [$(Column {
                    name: stringify!($name),
                    kind: <$type as Cell>::KIND,
                    unit: $crate::units::Unit::$unit,
                    nullable: <$type as Cell>::NULLABLE,
                    meaning: concat!($($meaning),+).trim_ascii(),
                }),+];
                #[allow(unused_mut, reason = "a row without lineage adds nothing")]
                let mut columns = Vec::from(own);
                $(columns.extend($lineage::columns());)?
                columns
            }
        }
    };
}
use row;

row! {
    /// Where a row came from: enough to find the run, repeat the work and tell whether it is stale.
    #[derive(Default)]
    Lineage {
        /// The run that wrote the row.
        run_id: String, None;
        /// blake3 of the resolved pipeline.
        pipeline_hash: String, None;
        /// The version of Torcula that wrote the row.
        software_version: String, None;
        /// blake3 over the input bytes, the stage versions and the parameters.
        fingerprint: String, None;
        /// The seed of the run.
        seed: i64, None;
        /// The version of the table cases that the run read.
        catalog_version: i64, None;
        /// When the row was made.
        created_at: Timestamp, MicrosecondUtc;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn tables_are_indexed_by_their_own_order() {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, index);
            assert_eq!(table.name().parse::<Table>().unwrap(), table);
        }
        let error = "case".parse::<Table>().unwrap_err();
        assert!(error.to_string().contains("cases, quality, splits"), "{error}");
    }

    #[test]
    fn column_names_carry_their_units() {
        for table in Table::ALL {
            for column in table.columns() {
                let ending = match column.unit {
                    Unit::Millimetre => "_mm",
                    Unit::Millilitre => "_ml",
                    Unit::SecondPerSquareMillimetre => "_s_per_mm2",
                    Unit::Millisecond => "_ms",
                    Unit::Hour => "_h",
                    Unit::Year => "_y",
                    Unit::Tesla => "_t",
                    Unit::MicrosecondUtc => "_at",
                    _ => "",
                };
                assert!(column.name.ends_with(ending), "{table}.{} lacks {ending}", column.name);
                assert!(column.meaning.ends_with('.'), "{table}.{} has no meaning", column.name);
            }
            let mut names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.columns().len(), "{table} repeats a column");
            assert!(table.keys().iter().all(|key| table.column(key).is_some()));
        }
    }

    #[test]
    fn units_are_in_the_field_metadata() {
        let schema = Table::Cases.arrow_schema();
        let field = schema.field_with_name("spacing_x_mm").unwrap();
        assert_eq!(field.metadata()["unit"], "mm");
        assert_eq!(field.data_type(), &DataType::Float64);
        assert!(!schema.field_with_name("case_id").unwrap().is_nullable());
        assert!(schema.field_with_name("age_y").unwrap().is_nullable());
    }
}
