//! What starts the nightly job every night: each file is checked by its own tool where that runs here.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::TORCULA;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

/// What a tool printed; none, said so, where this machine does not have it.
fn checked(program: &str, args: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(program).args(args).output() else {
        println!("skipped: there is no {program} here");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {said}");
    Some(text)
}

/// The words of a shell command after `torcula run`, as the program takes them.
fn arguments(command: &str) -> Vec<String> {
    let command = command.replace("\\\n", " ");
    let (_, rest) = command.split_once("torcula run ").expect("it runs torcula");
    let words = rest.lines().next().unwrap_or_default().split_whitespace();
    words.take_while(|word| *word != "&").map(|word| word.trim_matches('"').to_owned()).collect()
}

/// The program understands the arguments, and the pipeline that it is given, which stands in for the installed one.
fn understood(arguments: &[String]) {
    let shipped = deploy("../nightly-rescore.yaml");
    assert!(
        arguments[0].contains("nightly-rescore.yaml") || arguments[0] == "$pipeline",
        "{arguments:?}"
    );
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(TORCULA);
    command.arg("explain").arg(shipped).current_dir(nowhere.path());
    for argument in &arguments[1..] {
        let data = nowhere.path().display().to_string();
        let argument = argument.replace("/srv/registry", &data).replace("$data", &data);
        command.arg(
            argument.replace("$model", "newest:unet").replace("${SLURM_CPUS_PER_TASK:-8}", "8"),
        );
    }
    command.args(["--set", "model=newest:unet"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn systemd_accepts_the_service_and_the_timer() {
    let service = read("torcula-nightly.service");
    let line = service.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    understood(&arguments(line));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // systemd looks for the program.
    std::fs::write(
        at("torcula-nightly.service"),
        service.replace("/usr/local/bin/torcula", TORCULA),
    )
    .unwrap();
    std::fs::copy(deploy("torcula-nightly.timer"), at("torcula-nightly.timer")).unwrap();
    let units = [at("torcula-nightly.service"), at("torcula-nightly.timer")];
    checked("systemd-analyze", &["verify", "--man=no", &units[0], &units[1]]);
    let timer = read("torcula-nightly.timer");
    let when = timer.lines().find_map(|line| line.strip_prefix("OnCalendar=")).unwrap();
    if let Some(text) = checked("systemd-analyze", &["calendar", "--iterations=1", when]) {
        assert!(text.contains("02:30:00"), "{text}");
    }
}

#[test]
fn cron_takes_the_line() {
    let text = read("torcula-nightly.cron");
    let line = text.lines().find(|line| line.starts_with(|c: char| c.is_ascii_digit())).unwrap();
    let fields: Vec<&str> = line.splitn(7, ' ').collect();
    let [minute, hour, day, month, weekday, user, command] = fields[..] else { panic!("{line}") };
    assert!(minute.parse::<u8>().is_ok_and(|m| m < 60) && hour.parse::<u8>().is_ok_and(|h| h < 24));
    assert_eq!((day, month, weekday, user), ("*", "*", "*", "torcula"));
    assert!(!command.contains('%'), "a % ends a command of cron");
    checked("bash", &["-n", "-c", command]);
    understood(&arguments(command));
    assert!(text.ends_with('\n'), "cron ignores a last line without an end");
}

#[test]
fn bash_reads_the_slurm_script() {
    let path = deploy("torcula-nightly.sbatch").display().to_string();
    checked("bash", &["-n", &path]);
    checked("shellcheck", &[&path]);
    let text = read("torcula-nightly.sbatch");
    understood(&arguments(&text));
    let (head, body) = text.split_once("set -euo").unwrap();
    assert!(head.contains("#SBATCH --dependency=singleton") && !body.contains("#SBATCH"), "{head}");
}

#[test]
fn a_slurm_job_that_is_told_to_end_lets_the_run_commit_and_hands_on_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Stands in for the program, as far as the script can tell: it ends when it is told to.
    let program = "#!/bin/bash\ntrap 'echo told > \"$TOLD\"; exit 1' TERM\ntouch \"$TOLD.ready\"\n\
                   [ \"${CODE:-}\" = '' ] || exit \"$CODE\"\nwhile :; do sleep 0.05; done\n";
    std::fs::write(at("torcula"), program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(at("torcula"), mode).unwrap();
    let start = |code: &str| {
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(deploy("torcula-nightly.sbatch")).env("PATH", path).env("CODE", code);
        command.env("TOLD", at("told")).spawn().unwrap()
    };
    assert_eq!(start("4").wait().unwrap().code(), Some(4));
    std::fs::remove_file(at("told.ready")).unwrap();
    let mut job = start("");
    while !at("told.ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(
        Command::new("kill").args(["-TERM", &job.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(job.wait().unwrap().code(), Some(1));
    assert!(at("told").exists(), "the run was told");
}

#[test]
fn kubernetes_knows_every_key_of_the_cron_job() {
    let path = deploy("torcula-nightly-cronjob.yaml").display().to_string();
    let text = read("torcula-nightly-cronjob.yaml");
    let given = torcula::pipeline::parse_value(&text).unwrap();
    let container = given.pointer("/spec/jobTemplate/spec/template/spec/containers/0").unwrap();
    let mut words: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
    assert_eq!(words.remove(0), "run");
    understood(&words);
    assert_eq!(given["spec"]["concurrencyPolicy"], "Forbid");
    // Reads the file into Kubernetes's own types, which drop what they do not know.
    let args = ["set", "image", "--local", "-f", &path, "torcula=x", "-o", "json"];
    let Some(known) = checked("kubectl", &args) else { return };
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    assert_keys(&given, &known, "");
}

/// Every key that is given is known.
fn assert_keys(given: &serde_json::Value, known: &serde_json::Value, place: &str) {
    match given {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let place = format!("{place}/{key}");
                let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
                let found = known.get(key);
                assert!(found.is_some() || is_empty, "{place} is unknown");
                assert_keys(value, found.unwrap_or(&serde_json::Value::Null), &place);
            }
        }
        serde_json::Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                assert_keys(item, &known[i], &format!("{place}/{i}"));
            }
        }
        _ => {}
    }
}
