//! The files in `schemas/`: one JSON document a table, generated from the code and compared with it by a test.
//! Set `TORCULA_WRITE_SCHEMAS=1` and run the tests to rewrite them.

use serde_json::json;

use super::Table;

/// The file name of a table's document.
pub fn schema_file(table: Table) -> String {
    format!("{table}.json")
}

/// The text of a table's document: its meaning, keys and, for each column, name, Arrow type, unit, whether a value may
/// be missing, and meaning.
pub fn schema_json(table: Table) -> String {
    let columns: Vec<_> = table
        .columns()
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind.name(),
                "unit": column.unit.symbol(),
                "nullable": column.nullable,
                "meaning": column.meaning,
            })
        })
        .collect();
    let document = json!({
        "table": table.name(),
        "meaning": table.meaning(),
        "keys": table.keys(),
        "columns": columns,
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::path::Path;

    use super::*;

    #[test]
    fn files_match_the_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let rewrite = std::env::var_os("TORCULA_WRITE_SCHEMAS").is_some();
        for table in Table::ALL {
            let path = folder.join(schema_file(table));
            let text = schema_json(table);
            if rewrite {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == text,
                "{} is not what the code says; rewrite it with TORCULA_WRITE_SCHEMAS=1 cargo test schema",
                path.display()
            );
        }
    }
}
