//! The report as a reader meets it: its numbers asked again with `torcula sql`, and its page in a browser.

use std::path::Path;
use std::process::Command;

use super::support::{Registry, files, succeed};

const PIPELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/study.yaml");

fn run(registry: &Registry) -> String {
    let data = format!("data={}", registry.path().display());
    succeed(&["run", PIPELINE, "--set", &data, "--progress", "none"])
}

/// The text between `start` and the next `end`, after `from`.
fn between<'a>(page: &'a str, from: &str, start: &str, end: &str) -> &'a str {
    let at = page.find(from).unwrap_or_else(|| panic!("no {from}"));
    let rest = &page[at..];
    let rest = &rest[rest.find(start).unwrap() + start.len()..];
    &rest[..rest.find(end).unwrap()]
}

fn unescaped(html: &str) -> String {
    html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[test]
fn the_sql_on_the_page_gives_the_numbers_of_the_page() {
    let registry = Registry::synth(40, &[]);
    run(&registry);
    let page = std::fs::read_to_string(registry.path().join("report.html")).unwrap();
    let sql = unescaped(between(&page, "id=\"baseline-characteristics\"", "<code>", "</code>"));
    assert!(sql.starts_with("SELECT count(*) AS n"), "{sql}");
    let answer = registry.sql(&sql);
    let numbers: Vec<&str> = answer.split(',').collect();
    let table = registry.path().join("report-files/baseline-characteristics-table.csv");
    let table = std::fs::read_to_string(table).unwrap();
    let row = |start: &str| {
        let line = table.lines().find(|l| l.starts_with(start)).unwrap();
        line.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let head = row("Variable");
    let of =
        |row: &[String], column: &str| row[head.iter().position(|h| h == column).unwrap()].clone();
    assert_eq!(of(&row("Cases"), "Training"), numbers[0]);
    // "Age (years), mean ± SD" holds a comma and is quoted: its cells are one further to the right.
    let age = row("\"Age (years)");
    let mean: f64 =
        age[1 + head.iter().position(|h| h == "Training mean").unwrap()].parse().unwrap();
    assert!((mean - numbers[2].parse::<f64>().unwrap()).abs() < 1e-9, "{mean} and {answer}");
    assert!(page.contains("67.9 ± 12.9") && page.contains("Flow of cases"));
}

/// A browser, where one is installed.
fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    })
}

/// What the script of a page wrote into it, once the browser has loaded it.
fn dom(browser: &str, page: &Path, extra: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--allow-file-access-from-files", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=5000", "--window-size=1400,900"])
        .args(extra)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Looks at the report in frames of two widths and writes what it finds as JSON.
const PROBE: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const found = {};
const look = (name, width) => new Promise(done => {
  const frame = document.createElement('iframe');
  frame.style.width = width + 'px'; frame.style.height = '900px'; frame.style.border = '0';
  frame.onload = () => {
    const page = frame.contentDocument, view = frame.contentWindow;
    const charts = [...page.querySelectorAll('svg.chart')].filter(s => s.getBoundingClientRect().width > 0);
    const links = [...page.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1));
    const keys = [...page.querySelectorAll('a[href], summary, [tabindex="0"]')];
    const shown = keys.filter(k => k.tagName === 'SUMMARY' || !k.closest('details:not([open])'));
    const lost = shown.filter(k => { k.focus(); return page.activeElement !== k; });
    found[name] = {
      overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
      charts: charts.length,
      small: charts.filter(s => s.getBoundingClientRect().height < 40).length,
      requests: view.performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length,
      scripts: page.scripts.length,
      dead: links.filter(id => !page.getElementById(id)),
      unreachable: [...page.querySelectorAll('.scroll, pre')].filter(e => e.tabIndex < 0).length,
      keys: shown.length,
      lost: lost.length,
      ground: view.getComputedStyle(page.body).backgroundColor,
      unnamed: [...page.querySelectorAll('svg.chart')].filter(s => !page.getElementById(s.getAttribute('aria-labelledby').split(' ')[0])).length,
    };
    done();
  };
  frame.src = 'report.html';
  document.body.appendChild(frame);
});
look('wide', 1280).then(() => look('phone', 390)).then(() => {
  const out = document.createElement('pre'); out.id = 'found'; out.textContent = JSON.stringify(found);
  document.body.appendChild(out);
});
</script>"#;

#[test]
fn the_page_reads_well_in_a_browser() {
    let Some(browser) = browser() else {
        println!("not tested: no chromium is installed");
        return;
    };
    let registry = Registry::synth(24, &[]);
    run(&registry);
    let probe = registry.path().join("probe.html");
    std::fs::write(&probe, PROBE).unwrap();
    let look = |extra: &[&str]| -> serde_json::Value {
        let dom = dom(browser, &probe, extra);
        let text = between(&dom, "id=\"found\"", ">", "</pre>");
        serde_json::from_str(&unescaped(text)).unwrap()
    };
    let found = look(&[]);
    for width in ["wide", "phone"] {
        let at = &found[width];
        assert!(at["overflow"].as_i64().unwrap() <= 0, "{width} scrolls sideways: {found:#}");
        assert!(at["charts"].as_u64().unwrap() >= 7, "{found:#}");
        for none in ["small", "requests", "scripts", "unreachable", "unnamed", "lost"] {
            assert_eq!(at[none], 0, "{none} at {width}: {found:#}");
        }
        assert_eq!(at["dead"], serde_json::json!([]), "links of the menu: {found:#}");
        assert!(at["keys"].as_u64().unwrap() > 20, "{found:#}");
    }
    assert_eq!(found["wide"]["ground"], "rgb(255, 255, 255)");
    let dark = look(&["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]);
    assert_ne!(dark["wide"]["ground"], found["wide"]["ground"], "dark mode has a dark ground");
    // On paper: a PDF of several pages.
    let pdf = registry.path().join("report.pdf");
    let profile = tempfile::tempdir().unwrap();
    Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--print-to-pdf={}", pdf.display()))
        .arg(format!("file://{}", registry.path().join("report.html").display()))
        .output()
        .unwrap();
    assert!(std::fs::read(&pdf).unwrap().starts_with(b"%PDF"));
    assert!(files(&registry.path().join("report-files")).len() > 10);
}
