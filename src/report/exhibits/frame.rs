//! The values behind an exhibit, in columns, and the cases in groups.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::error::{Error, Result};
use crate::pipeline::report_spec::{CutSpec, StratumSpec};
use crate::report::load::query::{Source, identifier};
use crate::report::load::strata::{Groups, Variable, label};

/// What a group without a value is called.
pub const NOT_KNOWN: &str = "not known";
/// Most groups of one division that are told apart.
const MOST_GROUPS: usize = 40;

/// Columns of numbers and of words, a value a row; the order of rows means nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Number of rows.
    pub rows: usize,
    numbers: BTreeMap<String, Vec<Option<f64>>>,
    words: BTreeMap<String, Vec<Option<String>>>,
}

impl Frame {
    /// Runs a query and takes these of its columns as numbers and these as words.
    ///
    /// # Errors
    /// A configuration fault where a column is not there or holds no numbers.
    pub async fn load(
        source: &Source<'_>,
        sql: &str,
        numbers: &[&str],
        words: &[&str],
    ) -> Result<Self> {
        let mut frame = Self::default();
        for batch in source.answer(sql).await? {
            frame.rows += batch.num_rows();
            for name in numbers {
                let column = number_column(&batch, name)?;
                frame.numbers.entry((*name).to_owned()).or_default().extend(column);
            }
            for name in words {
                let column = word_column(&batch, name)?;
                frame.words.entry((*name).to_owned()).or_default().extend(column);
            }
        }
        Ok(frame)
    }

    /// The rows with two columns under the names that [`Division::groups`] reads.
    #[must_use]
    pub fn named(&self, group: &str, level: &str) -> Self {
        let mut frame = Self { rows: self.rows, ..Self::default() };
        frame.words.extend(self.words.get(group).map(|c| ("group".to_owned(), c.clone())));
        frame.numbers.extend(self.numbers.get(level).map(|c| ("level".to_owned(), c.clone())));
        frame
    }

    /// A column of numbers; empty where it was not asked for.
    pub fn numbers(&self, name: &str) -> &[Option<f64>] {
        self.numbers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The word of a row.
    pub fn word(&self, name: &str, row: usize) -> Option<&str> {
        self.words.get(name)?.get(row)?.as_deref()
    }

    /// The numbers of some rows, sorted, so that what is made of them does not depend on the order of rows.
    pub fn values(&self, name: &str, rows: &[usize]) -> Vec<Option<f64>> {
        let column = self.numbers(name);
        let mut values: Vec<Option<f64>> = rows.iter().map(|&row| column[row]).collect();
        values.sort_by(|a, b| match (a, b) {
            (Some(a), Some(b)) => a.total_cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        values
    }

    /// The rows of each word, in the order of [`natural`]; rows without one last, as none.
    pub fn by_word(&self, name: &str) -> Vec<(Option<&str>, Vec<usize>)> {
        let mut groups: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        for row in 0..self.rows {
            groups.entry(self.word(name, row)).or_default().push(row);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) => natural(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        groups
    }
}

/// Numbers by their size, before words by their letters.
pub fn natural(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        _ => a.cmp(b),
    }
}

fn column_of<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| Error::bug(format!("the query of the report has no column `{name}`")))
}

fn number_column(batch: &RecordBatch, name: &str) -> Result<Vec<Option<f64>>> {
    let column = column_of(batch, name)?;
    let kind = column.data_type();
    if !kind.is_numeric() && !matches!(kind, DataType::Boolean | DataType::Null) {
        return Err(Error::configuration(format!("the column {name} holds {kind}, not numbers"))
            .hint("name a column of numbers, or cast it in the query"));
    }
    let column = cast(column, &DataType::Float64).map_err(|e| Error::bug(e.to_string()))?;
    Ok(column.as_primitive::<Float64Type>().iter().map(|v| v.filter(|v| !v.is_nan())).collect())
}

fn word_column(batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let column = column_of(batch, name)?;
    if column.data_type().is_nested() {
        return Err(Error::configuration(format!("the column {name} holds lists")));
    }
    let (yes_no, real) =
        (*column.data_type() == DataType::Boolean, column.data_type().is_floating());
    let column = cast(column, &DataType::Utf8).map_err(|e| Error::bug(e.to_string()))?;
    let said = |word: &str| match (yes_no, word) {
        (true, "true") => "yes".to_owned(),
        (true, _) => "no".to_owned(),
        (false, word) => word.strip_suffix(".0").filter(|_| real).unwrap_or(word).to_owned(),
    };
    Ok(column.as_string::<i32>().iter().map(|word| word.map(said)).collect())
}

/// The columns of a relation; an error that lists them where one of `wanted` is not there.
pub async fn columns(
    source: &Source<'_>,
    query: &str,
    wanted: &[&str],
) -> Result<Vec<(String, DataType)>> {
    let columns = source.columns_of(query).await?;
    for name in wanted {
        if columns.iter().all(|(known, _)| known != name) {
            let known: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::configuration(format!("there is no column `{name}`"))
                .hint(crate::engine::parameters::suggest(name, &known)));
        }
    }
    Ok(columns)
}

/// A variable that divides the rows of a relation `s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Division {
    /// The column as the file names it.
    pub column: String,
    /// Its groups.
    pub variable: Variable,
}

impl Division {
    /// The variable that the file asks for, among the columns of a relation.
    ///
    /// # Errors
    /// A configuration fault where there is no such column.
    pub fn find(spec: &StratumSpec, columns: &[(String, DataType)]) -> Result<Self> {
        let plain = |name: &str| Variable::of(name, "s", columns).map_err(Error::configuration);
        match spec {
            StratumSpec::Name(name) => Ok(Self { column: name.clone(), variable: plain(name)? }),
            StratumSpec::Cut(cut) => {
                let mut variable = plain(&cut.column)?;
                apply(cut, &mut variable);
                Ok(Self { column: cut.column.clone(), variable })
            }
        }
    }

    /// Columns of a query over `s`: the group of a row, and its value where groups are named by their range.
    pub fn select(&self, within: &[String]) -> String {
        self.select_as(within, "group", "level")
    }

    /// As [`select`](Self::select), with other names of the two columns; [`Frame::named`] gives them theirs back.
    pub fn select_as(&self, within: &[String], group: &str, level: &str) -> String {
        let value = match self.variable.groups {
            Groups::Quantiles(_) => self.variable.value.as_str(),
            _ => "CAST(NULL AS DOUBLE)",
        };
        let (group, level) = (identifier(group), identifier(level));
        format!("{} AS {group}, {value} AS {level}", self.variable.group_sql(within))
    }

    /// The rows of each group, in order, with its name. Groups of fixed bounds are there even where they are empty; rows
    /// without a value come last.
    pub fn groups(&self, frame: &Frame) -> Vec<(String, Vec<usize>)> {
        let variable = &self.variable;
        let mut groups = frame.by_word("group");
        let unknown = groups.pop_if(|(name, _)| name.is_none());
        let mut named: Vec<(String, String, Vec<usize>)> = groups
            .into_iter()
            .filter_map(|(key, rows)| Some((key?.to_owned(), rows)))
            .map(|(key, rows)| (key.clone(), self.name_of(&key, frame, &rows), rows))
            .collect();
        if !variable.is_made_by_cases() {
            for key in variable.known() {
                if named.iter().all(|(k, ..)| *k != key) {
                    named.push((key.clone(), key, Vec::new()));
                }
            }
        }
        named.sort_by(|(a, ..), (b, ..)| {
            variable.rank(a).cmp(&variable.rank(b)).then_with(|| natural(a, b))
        });
        let mut named: Vec<_> = named.into_iter().map(|(_, name, rows)| (name, rows)).collect();
        if named.len() > MOST_GROUPS {
            let rest = named.split_off(MOST_GROUPS);
            let count = rest.len();
            let rows = rest.into_iter().flat_map(|(_, rows)| rows).collect();
            named.push((format!("{count} other groups"), rows));
        }
        named.extend(unknown.map(|(_, rows)| (NOT_KNOWN.to_owned(), rows)));
        named
    }

    fn name_of(&self, key: &str, frame: &Frame, rows: &[usize]) -> String {
        let levels = frame.values("level", rows);
        match (&self.variable.groups, levels.first(), levels.last()) {
            (Groups::Quantiles(_), Some(Some(low)), Some(Some(high))) => {
                Variable::quantile_label(key, *low, *high)
            }
            _ => key.replace('_', " "),
        }
    }
}

fn apply(cut: &CutSpec, variable: &mut Variable) {
    if let Some(label) = &cut.label {
        variable.label.clone_from(label);
    }
    if let Some(n) = cut.quantiles {
        variable.groups = Groups::Quantiles(n);
        if cut.label.is_none() {
            variable.label = format!("{}, in {n} groups", label(&cut.column));
        }
    }
    if !cut.cuts.is_empty() {
        variable.groups = Groups::Cuts(cut.cuts.clone(), cut.unit.clone());
        if cut.label.is_none() {
            label(&cut.column).clone_into(&mut variable.label);
        }
    }
}

/// `count`, mean, SD, SE and median of each score, in SQL: what anyone can ask again.
pub fn aggregates(measures: &[String]) -> String {
    let of = |m: &String| {
        let column = identifier(m);
        let name = |what: &str| identifier(&format!("{m}_{what}"));
        format!(
            "count({column}) AS {}, avg({column}) AS {},\n  stddev({column}) AS {}, stddev({column}) / sqrt(count({column})) AS {},\n  \
             median({column}) AS {}",
            name("n"),
            name("mean"),
            name("sd"),
            name("se"),
            name("median")
        )
    };
    let each = measures.iter().map(of).collect::<Vec<_>>();
    std::iter::once("count(*) AS n".to_owned()).chain(each).collect::<Vec<_>>().join(",\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_size_and_before_words() {
        let mut all = ["1732", "b", "217", "a", "20"];
        all.sort_by(|a, b| natural(a, b));
        assert_eq!(all, ["20", "217", "1732", "a", "b"]);
    }

    #[test]
    fn a_cut_of_the_file_replaces_the_usual_groups() {
        let columns = [("age_y".to_owned(), DataType::Float64)];
        let cut = CutSpec {
            column: "age_y".to_owned(),
            cuts: vec![50.0, 70.0],
            unit: "y".to_owned(),
            ..CutSpec::default()
        };
        let found =
            Division::find(&StratumSpec::Cut(cut), &columns).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.variable.known(), ["< 50 y", "50–70 y", "> 70 y"]);
        let found = Division::find(&StratumSpec::Name("age".to_owned()), &columns);
        assert!(found.is_err_and(|e| e.reason().contains("age")));
    }
}
