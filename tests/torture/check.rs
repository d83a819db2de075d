//! What must hold after a fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use torcula::catalog::{Catalog, SessionAt, Table, json_rows, sql};
use torcula::error::Fault;
use torcula::formats::files::is_temporary;

use super::disk::disk_bytes;
use super::fault::Damage;
use super::world::{Bench, Phase, World, files, text};

/// Columns that say when and by which run, not what.
const OF_THE_RUN: [&str; 5] =
    ["run_id", "created_at", "ingested_at", "catalog_version", "pipeline_hash"];

static CATALOGS: AtomicUsize = AtomicUsize::new(0);
static ROWS: AtomicUsize = AtomicUsize::new(0);
static FILES: AtomicUsize = AtomicUsize::new(0);
static READS: AtomicUsize = AtomicUsize::new(0);
static COMPLETED: AtomicUsize = AtomicUsize::new(0);

/// How much was looked at.
pub struct Counted {
    pub catalogs: usize,
    pub rows: usize,
    pub files: usize,
    pub reads: usize,
    pub completed: usize,
}

pub fn counted() -> Counted {
    let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    Counted {
        catalogs: of(&CATALOGS),
        rows: of(&ROWS),
        files: of(&FILES),
        reads: of(&READS),
        completed: of(&COMPLETED),
    }
}

pub fn count_read() {
    READS.fetch_add(1, Ordering::Relaxed);
}

/// The rows of every table.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    tables: BTreeMap<&'static str, Vec<Value>>,
}

impl Snapshot {
    /// Reads the catalog as any reader does; an empty one where there is none yet.
    pub fn take(world: &World<'_>, damage: &Damage) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        CATALOGS.fetch_add(1, Ordering::Relaxed);
        match runtime.block_on(Self::read(&world.catalog())) {
            Ok(snapshot) => Ok(snapshot),
            // Not made to its end yet: a run goes on with it.
            Err(error) if error.fault() == Fault::Configuration => Ok(Self::default()),
            Err(error) if damage.told_as_torn && error.to_string().contains("torcula run") => {
                Ok(Self::default())
            }
            Err(error) => Err(format!("the catalog cannot be read: {error}")),
        }
    }

    pub async fn read(catalog: &Path) -> torcula::error::Result<Self> {
        let catalog = Catalog::open(catalog).await?;
        let session = catalog.session(SessionAt::Latest).await?;
        let mut tables = BTreeMap::new();
        for table in Table::ALL {
            let rows = json_rows(&sql(&session, &format!("SELECT * FROM {table}")).await?)?;
            ROWS.fetch_add(rows.len(), Ordering::Relaxed);
            tables.insert(table.name(), rows);
        }
        Ok(Self { tables })
    }

    /// Whether the catalog could be read.
    pub fn is_told(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Forgets the rows of tables that were damaged on purpose.
    pub fn without(&mut self, tables: &BTreeSet<String>) {
        self.tables.retain(|name, _| !tables.contains(*name));
    }

    pub fn rows(&self, table: &str) -> &[Value] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }

    /// No row is there twice, every artifact is there with the bytes of its row, and no other readable file is.
    pub fn consistent(
        &self,
        world: &World<'_>,
        reference: &Reference,
        damage: &Damage,
    ) -> Result<(), String> {
        for (table, keys) in [
            ("cases", &["case_id"][..]),
            ("quality", &["case_id", "step", "fingerprint"]),
            ("artifacts", &["artifact_id"]),
            ("splits", &["split", "case_id", "part", "fingerprint"]),
            ("runs", &["run_id"]),
            ("failures", &["case_id", "step", "stage", "fingerprint"]),
        ] {
            let mut seen = BTreeSet::new();
            for row in self.rows(table) {
                if row["transient"] == true {
                    continue;
                }
                let key: Vec<String> = keys.iter().map(|key| row[*key].to_string()).collect();
                if !seen.insert(key.clone()) {
                    return Err(format!("a row of {table} is there twice: {}", key.join(" ")));
                }
            }
        }
        let mut hashed: HashMap<&str, (u64, String)> = HashMap::new();
        for row in self.rows("artifacts") {
            let uri = row["uri"].as_str().unwrap_or_default();
            if uri.is_empty() {
                continue;
            }
            if !hashed.contains_key(uri) {
                let bytes =
                    fs::read(uri).map_err(|error| format!("{uri}: a row names it: {error}"))?;
                hashed.insert(uri, (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()));
            }
            let (bytes, blake3) = &hashed[uri];
            if row["bytes"] != *bytes || row["blake3"] != *blake3 {
                return Err(format!("{uri}: its bytes are not those of its row"));
            }
        }
        FILES.fetch_add(hashed.len(), Ordering::Relaxed);
        let root = world.derivatives();
        for path in files(&root) {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if is_temporary(&path.file_name().unwrap().to_string_lossy())
                || damage.files.contains(&path)
            {
                continue;
            }
            let Some(expected) = reference.files.get(&name) else {
                return Err(format!("{name}: a file that no undisturbed run writes"));
            };
            if *expected != hash(&path) {
                return Err(format!("{name}: a file that can be read and is not whole"));
            }
            FILES.fetch_add(1, Ordering::Relaxed);
        }
        let page = world.path().join("report.html");
        if page.exists()
            && !fs::read_to_string(&page).is_ok_and(|t| t.trim_end().ends_with("</html>"))
        {
            return Err("report.html is not whole".to_owned());
        }
        Ok(())
    }

    /// Every row that was there before is there still.
    pub fn holds(&self, before: &Self) -> Result<(), String> {
        for (table, rows) in &before.tables {
            // A case is replaced, or leaves when its files turn out broken; the end compares them all.
            if *table == "cases" {
                continue;
            }
            // Its status changes.
            let key = |row: &Value| match *table {
                "runs" => row["run_id"].to_string(),
                _ => row.to_string(),
            };
            let now: BTreeSet<String> = self.rows(table).iter().map(key).collect();
            if let Some(lost) = rows.iter().find(|row| !now.contains(&key(row))) {
                return Err(format!("a committed row of {table} is lost: {lost}"));
            }
        }
        Ok(())
    }

    /// The rows without what differs between runs, sorted.
    fn neutral(&self, world: &Path) -> BTreeMap<&'static str, Vec<String>> {
        let place = world.to_string_lossy().into_owned();
        let tables = self.tables.iter().filter(|(name, _)| **name != "runs");
        tables
            .map(|(name, rows)| {
                let lasting = rows.iter().filter(|row| row["transient"] != true);
                let mut lines: Vec<String> = lasting
                    .map(|row| {
                        let mut row = row.clone();
                        let object = row.as_object_mut().unwrap();
                        object.retain(|key, _| !OF_THE_RUN.contains(&key.as_str()));
                        if *name == "failures" && object["step"] == "registry" {
                            // Made from the paths of the files.
                            object.remove("fingerprint");
                        }
                        row.to_string().replace(&place, "WORLD")
                    })
                    .collect();
                lines.sort();
                (*name, lines)
            })
            .collect()
    }
}

fn hash(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap_or_default()).to_hex().to_string()
}

/// The undisturbed result, and how long it took to get there.
pub struct Reference {
    /// Every file that either state of the registry leads to: name → hash.
    files: BTreeMap<String, String>,
    phases: Vec<Finished>,
}

struct Finished {
    files: BTreeMap<String, String>,
    tables: BTreeMap<&'static str, Vec<String>>,
    /// Writing and reading operations of the run.
    operations: (usize, usize),
    elapsed: Duration,
    bytes: u64,
}

impl Reference {
    pub fn make(bench: &Bench) -> Self {
        let world = World::new(bench);
        let mut phases = Vec::new();
        for phase in Phase::ALL {
            world.advance(phase);
            let mark = world.path().join("mark");
            drop(fs::remove_file(&mark));
            let began = Instant::now();
            let mut command = world.command(&[]);
            command
                .env("LD_PRELOAD", world.library())
                .env("TORTURE_ROOTS", world.path())
                .env("TORTURE_KIND", "none")
                .env("TORTURE_MARK", &mark);
            let output = super::world::wait(command.spawn().unwrap());
            assert!(output.status.success(), "{}", text(&output));
            let elapsed = began.elapsed();
            let counts = fs::read_to_string(&mark).expect("the library of faults is loaded");
            let counts: Vec<usize> =
                counts.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let snapshot = Snapshot::take(&world, &Damage::default()).unwrap();
            phases.push(Finished {
                files: tree(&world),
                tables: snapshot.neutral(world.path()),
                operations: (counts[0], counts[1]),
                elapsed,
                bytes: disk_bytes(&world.catalog()) + disk_bytes(&world.derivatives()),
            });
        }
        let files = phases.iter().flat_map(|phase| phase.files.clone()).collect();
        Self { files, phases }
    }

    pub fn operations(&self, phase: Phase) -> (usize, usize) {
        self.phases[phase as usize].operations
    }

    pub fn elapsed(&self, phase: Phase) -> Duration {
        self.phases[phase as usize].elapsed
    }

    pub fn bytes(&self, phase: Phase) -> u64 {
        self.phases[phase as usize].bytes
    }

    /// Whether a world that ran to its end is what an undisturbed one is.
    pub fn equals(&self, world: &World<'_>, phase: Phase, found: &Snapshot) -> Result<(), String> {
        let expected = &self.phases[phase as usize];
        let found_files = tree(world);
        for (name, hash) in &expected.files {
            if found_files.get(name) != Some(hash) {
                return Err(format!("{name}: not as in an undisturbed run"));
            }
        }
        let found = found.neutral(world.path());
        for (table, rows) in &expected.tables {
            let (now, then): (BTreeSet<_>, BTreeSet<_>) =
                (found[table].iter().collect(), rows.iter().collect());
            if found[table] != *rows {
                return Err(format!(
                    "{table}: {} rows where an undisturbed run has {}; missing {:?}, too many {:?}",
                    found[table].len(),
                    rows.len(),
                    then.difference(&now).next(),
                    now.difference(&then).next()
                ));
            }
        }
        COMPLETED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The artifacts of a world: name → hash.
fn tree(world: &World<'_>) -> BTreeMap<String, String> {
    let root = world.derivatives();
    files(&root)
        .into_iter()
        .filter(|path| !is_temporary(&path.file_name().unwrap().to_string_lossy()))
        .map(|path| (path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), hash(&path)))
        .collect()
}
