//! The variables by which scores are divided: which groups each has, and the SQL that finds a case's group.
//!
//! Volume (1.7 and 14 mL) and onset to imaging (3 and 24 h) are cut as in Noh et al., medRxiv 2023.07.02.23292150, and
//! white-matter hyperintensities into tenths; other numbers into quarters; words by themselves.

use arrow::datatypes::DataType;

use super::query::{identifier, literal};

/// The order of infarct locations in that study: from the cortex downwards.
const LOCATIONS: [&str; 9] = [
    "cortex",
    "corona radiata",
    "basal ganglia + internal capsule",
    "thalamus",
    "midbrain",
    "pons",
    "medulla",
    "cerebellum",
    "multiple",
];

/// A variable that divides the cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// What it is, for readers.
    pub label: String,
    /// Its value in SQL, from the scores `s` and the cases `c`.
    pub value: String,
    /// How values become groups.
    pub groups: Groups,
}

/// How values become groups.
#[derive(Debug, Clone, PartialEq)]
pub enum Groups {
    /// Below the first number, from each number to the next, above the last; and the unit.
    Cuts(Vec<f64>, String),
    /// So many groups of equal size by rank.
    Quantiles(u32),
    /// Yes and no.
    YesNo,
    /// Each word a group; those named here first.
    Words(&'static [&'static str]),
}

impl Variable {
    /// The variable of this name among the columns of a relation of cases, which the query calls `c`; an error in words
    /// where it has no such column. `volume_ml` is that of the reference mask, in the scores `s`.
    pub fn find(name: &str, columns: &[(String, DataType)]) -> Result<Self, String> {
        if name == "volume_ml" {
            let value = "s.volume_truth_ml".to_owned();
            return Ok(Self { label: label(name).to_owned(), value, groups: volume_cuts() });
        }
        Self::of(name, "c", columns)
    }

    /// The variable of this name among the columns of a relation, which the query calls `alias`.
    pub fn of(name: &str, alias: &str, columns: &[(String, DataType)]) -> Result<Self, String> {
        let has = |name: &&str| columns.iter().any(|(column, _)| column == name);
        let column = match name {
            "volume_ml" => {
                let known = [name, "volume_truth_ml", "truth_volume_ml"];
                known.into_iter().find(|n| has(n)).unwrap_or(name)
            }
            name => name,
        };
        let value = format!("{alias}.{}", identifier(column));
        let label = label(name).to_owned();
        let Some((_, kind)) = columns.iter().find(|(known, _)| known == column) else {
            return Err(format!("there is no column {column}"));
        };
        let groups = match name {
            "volume_ml" | "truth_volume_ml" | "volume_truth_ml" => volume_cuts(),
            "onset_h" => Groups::Cuts(vec![3.0, 24.0], "h".to_owned()),
            "wmh_volume_ml" => Groups::Quantiles(10),
            "location" => Groups::Words(&LOCATIONS),
            "field_strength_t" => Groups::Words(&[]),
            _ if *kind == DataType::Boolean => Groups::YesNo,
            _ if kind.is_numeric() => Groups::Quantiles(4),
            _ if kind.is_nested() => return Err(format!("the column {name} holds lists")),
            _ => Groups::Words(&[]),
        };
        Ok(Self { label, value, groups })
    }

    /// SQL for the group of a case, which is NULL where the value is. Quantiles are drawn among the rows that have the values
    /// of `within` in common.
    pub fn group_sql(&self, within: &[String]) -> String {
        let value = &self.value;
        match &self.groups {
            Groups::Cuts(cuts, _) => {
                let mut sql = "CASE".to_owned();
                let names = self.known();
                for (i, (cut, name)) in cuts.iter().zip(&names).enumerate() {
                    let sign = if i == 0 { "<" } else { "<=" };
                    sql += &format!(" WHEN {value} {sign} {cut} THEN {}", literal(name));
                }
                let last = names.last().map(|name| literal(name)).unwrap_or_default();
                sql + &format!(" WHEN {value} IS NOT NULL THEN {last} END")
            }
            Groups::Quantiles(n) => {
                let within: String = within.iter().map(|w| format!(", {w}")).collect();
                format!(
                    "CASE WHEN {value} IS NOT NULL THEN CAST(ntile({n}) OVER (PARTITION BY {value} IS NULL{within} ORDER BY {value}, s.case_id) AS VARCHAR) END"
                )
            }
            Groups::YesNo => format!("CASE WHEN {value} THEN 'yes' WHEN NOT {value} THEN 'no' END"),
            Groups::Words(_) => format!("CAST({value} AS VARCHAR)"),
        }
    }

    /// Groups that are listed even when they are empty, in order.
    pub fn known(&self) -> Vec<String> {
        match &self.groups {
            Groups::Cuts(cuts, unit) => {
                let named = |text: String| format!("{text} {unit}").trim_end().to_owned();
                let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else {
                    return Vec::new();
                };
                // With one cut nothing lies between, and the cut itself belongs to the upper group.
                let above = if cuts.len() == 1 { "≥" } else { ">" };
                let between = cuts.windows(2).map(|pair| named(format!("{}–{}", pair[0], pair[1])));
                std::iter::once(named(format!("< {first}")))
                    .chain(between)
                    .chain([named(format!("{above} {last}"))])
                    .collect()
            }
            Groups::YesNo => vec!["no".to_owned(), "yes".to_owned()],
            Groups::Quantiles(n) => (1..=*n).map(|i| i.to_string()).collect(),
            Groups::Words(_) => Vec::new(),
        }
    }

    /// Where a group stands among the others.
    pub fn rank(&self, group: &str) -> usize {
        let place = match &self.groups {
            Groups::Words(first) => first.iter().position(|word| letters(word) == letters(group)),
            _ => self.known().iter().position(|w| w == group),
        };
        place.unwrap_or(usize::MAX)
    }

    /// Whether groups without cases are left out: only words and quantiles, whose groups the cases make.
    pub fn is_made_by_cases(&self) -> bool {
        matches!(self.groups, Groups::Words(_) | Groups::Quantiles(_))
    }

    /// What a quantile is called.
    pub fn quantile_label(group: &str, low: f64, high: f64) -> String {
        let digits = |v: f64| if v.abs() < 10.0 { format!("{v:.2}") } else { format!("{v:.0}") };
        format!("{group}: {} to {}", digits(low), digits(high))
    }
}

/// Small, medium and large infarcts.
fn volume_cuts() -> Groups {
    Groups::Cuts(vec![1.7, 14.0], "mL".to_owned())
}

/// A word without case, spaces and signs: registries write `corona_radiata` and `Corona radiata`.
fn letters(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// What a column is called, for readers.
pub fn label(name: &str) -> &str {
    match name {
        "volume_ml" | "truth_volume_ml" | "volume_truth_ml" => "Lesion volume",
        "onset_h" => "Onset to imaging",
        "location" => "Infarct location",
        "vendor" => "Scanner vendor",
        "model" => "Scanner model",
        "field_strength_t" => "Field strength (T)",
        "centre" => "Centre",
        "chronic_infarct" => "Chronic infarct",
        "wmh_volume_ml" => "White-matter hyperintensities (mL), tenths",
        "age_y" => "Age (years), quarters",
        "nihss" => "NIHSS, quarters",
        "sex" => "Sex",
        "stroke_subtype" => "Stroke subtype",
        "source" => "Source",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_studys_cuts_are_the_defaults() {
        let volume = Variable::find("volume_ml", &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(volume.known(), ["< 1.7 mL", "1.7–14 mL", "> 14 mL"]);
        let sql = volume.group_sql(&[]);
        assert!(sql.contains("WHEN s.volume_truth_ml < 1.7 THEN '< 1.7 mL'"), "{sql}");
        assert!(sql.ends_with("WHEN s.volume_truth_ml IS NOT NULL THEN '> 14 mL' END"), "{sql}");
        let columns = [("onset_h".to_owned(), DataType::Float64)];
        let onset = Variable::find("onset_h", &columns).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(onset.known(), ["< 3 h", "3–24 h", "> 24 h"]);
    }

    #[test]
    fn a_column_that_is_not_there_is_told() {
        assert_eq!(
            Variable::find("shoe_size", &[]),
            Err("there is no column shoe_size".to_owned())
        );
    }

    #[test]
    fn locations_stand_in_the_order_of_the_study() {
        let columns = [("location".to_owned(), DataType::Utf8)];
        let location = Variable::find("location", &columns).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(location.rank("Basal_ganglia_internal_capsule"), 2);
        assert_eq!(location.rank("pons"), 5);
        assert_eq!(location.rank("elsewhere"), usize::MAX);
    }

    #[test]
    fn one_cut_makes_two_groups_and_none_is_lost_between() {
        let groups = Groups::Cuts(vec![70.0], "y".to_owned());
        let age = Variable { label: String::new(), value: "s.age_y".to_owned(), groups };
        assert_eq!(age.known(), ["< 70 y", "≥ 70 y"]);
        let sql = "CASE WHEN s.age_y < 70 THEN '< 70 y' WHEN s.age_y IS NOT NULL THEN '≥ 70 y' END";
        assert_eq!(age.group_sql(&[]), sql);
    }

    #[test]
    fn columns_are_grouped_by_their_type() {
        let of = |kind| Variable::find("x", &[("x".to_owned(), kind)]).map(|v| v.groups);
        assert_eq!(of(DataType::Boolean), Ok(Groups::YesNo));
        assert_eq!(of(DataType::Float64), Ok(Groups::Quantiles(4)));
        assert_eq!(of(DataType::Utf8), Ok(Groups::Words(&[])));
    }
}
