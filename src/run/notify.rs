//! Tells people how a run ended: a command, or a post to a webhook.
//!
//! Whatever goes wrong here is a warning, never the run's failure, and no warning shows an address beyond its host: the rest of
//! it may be a secret.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde::Serialize;
use url::Url;

use super::{Ending, RunSummary, summary};
use crate::error::Error;
use crate::pipeline::{NotifySpec, NotifyWhen, Pipeline, WebhookSpec};

/// What stands for the summary line in an argument.
const SUMMARY: &str = "{summary}";
/// Pause between two looks at a command.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts to post.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How a run ended, for people and programs. `text` is what chat programs show.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Message {
    /// The summary line.
    pub text: String,
    /// The pipeline.
    pub pipeline: String,
    /// The run; empty where none began.
    pub run_id: String,
    /// `done`, `alarm`, `failed`, `stopped` or `over_limit`.
    pub status: &'static str,
    /// The exit code of the process.
    pub exit_code: u8,
    /// What someone should look at.
    pub alarms: Vec<String>,
    /// Cases done, in all steps.
    pub done: u64,
    /// Cases quarantined now, in all steps.
    pub failed: u64,
    /// The difference report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Whether anything happened.
    #[serde(skip)]
    is_news: bool,
}

impl Message {
    /// Of a run that came to an end.
    pub fn of(pipeline: &Pipeline, found: &RunSummary) -> Self {
        let differences = || found.steps.iter().filter_map(|step| step.difference.as_ref());
        let sum = |of: fn(&super::StepReport) -> u64| found.steps.iter().map(of).sum::<u64>();
        let (done, failed) = (sum(|s| s.done), sum(|s| s.failed));
        let status = match found.ending {
            Ending::Done => "done",
            Ending::Alarm(_) => "alarm",
            Ending::Failed(_) => "failed",
            Ending::Stopped => "stopped",
            Ending::OverLimit(_) => "over_limit",
        };
        // Steps that tell are done in every run: with a difference, it says whether anything happened.
        let is_news = match differences().next() {
            Some(_) => differences().any(|difference| difference.is_news),
            None => done + failed > 0,
        };
        Self {
            text: summary::line(&pipeline.name, &found.steps, &found.ending),
            pipeline: pipeline.name.clone(),
            run_id: found.run_id.clone(),
            status,
            exit_code: found.ending.exit_code(),
            alarms: differences().flat_map(|difference| difference.alarms.clone()).collect(),
            done,
            failed,
            report: differences().next().map(|d| d.html.display().to_string()),
            is_news,
        }
    }

    /// Of a run that could not begin.
    pub fn of_error(pipeline: &Pipeline, error: &Error) -> Self {
        Self {
            text: format!("{}: FAILED: {}", pipeline.name, error.reason()),
            pipeline: pipeline.name.clone(),
            status: "failed",
            exit_code: Ending::Failed(error.clone()).exit_code(),
            ..Self::default()
        }
    }

    fn is_wanted(&self, when: NotifyWhen) -> bool {
        let trouble = self.exit_code != 0 || !self.alarms.is_empty();
        match when {
            NotifyWhen::Always => true,
            NotifyWhen::News => trouble || self.is_news,
            NotifyWhen::Trouble => trouble,
        }
    }
}

/// Tells, where it is wanted. Returns what went wrong, for people. Not to be called from an asynchronous worker.
pub fn tell(spec: &NotifySpec, message: &Message) -> Vec<String> {
    if !message.is_wanted(spec.when) {
        return Vec::new();
    }
    let body = serde_json::to_string(message).unwrap_or_default();
    let limit = Duration::from_secs_f64(spec.timeout_s);
    let mut warnings = Vec::new();
    if let [program, arguments @ ..] = spec.command.as_slice()
        && let Err(why) = run(program, arguments, message, &body, limit)
    {
        warnings.push(format!("the command `{program}` was not told: {why}"));
    }
    if let Some(webhook) = &spec.webhook
        && let Err(why) = post(webhook, &body, limit, spec.retries)
    {
        warnings.push(format!("the webhook was not told: {why}"));
    }
    warnings
}

fn run(
    program: &str,
    arguments: &[String],
    message: &Message,
    body: &str,
    limit: Duration,
) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments.iter().map(|argument| argument.replace(SUMMARY, &message.text)))
        .env("TORCULA_SUMMARY", &message.text)
        .env("TORCULA_STATUS", message.status)
        .env("TORCULA_EXIT_CODE", message.exit_code.to_string())
        .env("TORCULA_RUN_ID", &message.run_id)
        .env("TORCULA_REPORT", message.report.as_deref().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut input) = child.stdin.take() {
        // A program that does not read its input is told by its arguments.
        drop(input.write_all(body.as_bytes()));
    }
    let began = Instant::now();
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("it ended with {status}")),
            None if began.elapsed() < limit => sleep(PAUSE),
            None => {
                drop(child.kill());
                drop(child.wait());
                return Err(format!(
                    "it did not end within {} s (notify.timeout_s)",
                    limit.as_secs_f64()
                ));
            }
        }
    }
}

/// What came of an attempt that failed.
struct Refused {
    why: String,
    /// Whether it may work another time.
    again: bool,
}

fn post(webhook: &WebhookSpec, body: &str, limit: Duration, retries: u32) -> Result<(), String> {
    let url = address(webhook)?;
    let token = webhook.token_env.as_deref().map(variable).transpose()?;
    let client = Client::builder()
        .timeout(limit)
        .redirect(Policy::none())
        .user_agent(concat!("torcula/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.without_url().to_string())?;
    let mut pause = Duration::from_secs(1);
    for attempt in 0..=retries {
        match once(&client, &url, token.as_deref(), body) {
            Ok(()) => return Ok(()),
            Err(Refused { again: true, .. }) if attempt < retries => {
                sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(Refused { why, .. }) => {
                let times = if attempt == 0 {
                    String::new()
                } else {
                    format!(" ({} attempts)", attempt + 1)
                };
                return Err(format!("{}: {why}{times}", host(&url)));
            }
        }
    }
    Ok(())
}

fn once(client: &Client, url: &Url, token: Option<&str>, body: &str) -> Result<(), Refused> {
    let mut request =
        client.post(url.clone()).header("content-type", "application/json").body(body.to_owned());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().map_err(|error| {
        let why = match (error.is_timeout(), error.is_connect()) {
            (true, _) => "it did not answer in time (notify.timeout_s)".to_owned(),
            (_, true) => "it cannot be reached".to_owned(),
            _ => error.without_url().to_string(),
        };
        Refused { why, again: true }
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let again = status.is_server_error() || status.as_u16() == 429;
    Err(Refused { why: format!("it answered {status}"), again })
}

fn address(webhook: &WebhookSpec) -> Result<Url, String> {
    let (text, whence) = match (&webhook.url, &webhook.url_env) {
        (Some(url), _) => (url.clone(), "notify.webhook.url".to_owned()),
        (None, Some(name)) => (variable(name)?, format!("the environment variable {name}")),
        (None, None) => return Err("it has neither url nor url_env".to_owned()),
    };
    let url = Url::parse(text.trim()).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| format!("{whence} holds no web address (https://…)"))
}

fn variable(name: &str) -> Result<String, String> {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => Ok(value.trim().to_owned()),
        _ => Err(format!("the environment variable {name} is not set")),
    }
}

/// The address without what may be secret: user, path and query.
fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    fn spec(json: &str) -> NotifySpec {
        serde_json::from_str(json).unwrap()
    }

    fn message() -> Message {
        Message { text: "nightly: done: 3 new".to_owned(), status: "done", ..Message::default() }
    }

    /// A server that answers each request with the next status; what it was sent.
    fn server(statuses: &'static [&'static str]) -> (u16, mpsc::Receiver<(String, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                        length = n.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    head += &line;
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
                sender.send((head, String::from_utf8(body).unwrap())).unwrap();
            }
        });
        (port, requests)
    }

    #[test]
    fn a_webhook_that_stumbles_is_told_again() {
        let (port, requests) = server(&["503 Busy", "200 OK"]);
        let spec = spec(&format!(
            r#"{{"webhook": {{"url": "http://127.0.0.1:{port}/hook?key=secret", "token_env": "PATH"}}}}"#
        ));
        assert_eq!(tell(&spec, &message()), Vec::<String>::new());
        requests.recv().unwrap();
        let (head, body) = requests.recv().unwrap();
        assert!(head.starts_with("POST /hook?key=secret"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer "), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&body["text"], &body["status"]),
            (&"nightly: done: 3 new".into(), &"done".into())
        );
    }

    #[test]
    fn what_is_not_delivered_is_a_warning_without_secrets() {
        let (port, _requests) = server(&["403 Forbidden"]);
        let address = format!("http://user:pass@127.0.0.1:{port}/secret/path?token=hidden");
        let refused = spec(&format!(r#"{{"webhook": {{"url": "{address}"}}}}"#));
        let warnings = tell(&refused, &message()).join("\n");
        assert!(warnings.contains("403") && warnings.contains("127.0.0.1"), "{warnings}");
        for secret in ["pass", "secret", "hidden"] {
            assert!(!warnings.contains(secret), "{warnings}");
        }
        let gone = spec(r#"{"retries": 0, "webhook": {"url": "http://127.0.0.1:9/secret"}}"#);
        let warnings = tell(&gone, &message()).join("\n");
        assert!(warnings.contains("reached") && !warnings.contains("secret"), "{warnings}");
        assert!(!format!("{gone:?}").contains("secret"));
        let unset = spec(r#"{"webhook": {"url_env": "TORCULA_NO_SUCH_VARIABLE"}}"#);
        assert!(tell(&unset, &message()).join("\n").contains("TORCULA_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn a_command_gets_the_line_and_the_message_and_is_not_waited_for_longer() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = format!(
            "cat > '{0}'; printf '\\n%s|%s' \"$1\" \"$TORCULA_STATUS\" >> '{0}'",
            out.display()
        );
        let command = serde_json::json!({"command": ["sh", "-c", script, "sh", "{summary}"]});
        assert_eq!(tell(&spec(&command.to_string()), &message()), Vec::<String>::new());
        let told = std::fs::read_to_string(&out).unwrap();
        assert!(told.contains(r#""text":"nightly: done: 3 new""#), "{told}");
        assert!(told.ends_with("nightly: done: 3 new|done"), "{told}");
        let failing = tell(&spec(r#"{"command": ["sh", "-c", "exit 7"]}"#), &message());
        assert!(failing.join("\n").contains('7'), "{failing:?}");
        assert!(!tell(&spec(r#"{"command": ["torcula-no-such-program"]}"#), &message()).is_empty());
        let slow = tell(&spec(r#"{"timeout_s": 0.2, "command": ["sleep", "60"]}"#), &message());
        assert!(slow.join("\n").contains("0.2 s"), "{slow:?}");
    }

    #[test]
    fn quiet_nights_are_told_only_to_those_who_want_them() {
        let quiet = message();
        let news = Message { is_news: true, ..message() };
        let trouble = Message { exit_code: 4, alarms: vec!["a".to_owned()], ..message() };
        let wanted = |when| [&quiet, &news, &trouble].map(|m: &Message| m.is_wanted(when));
        assert_eq!(wanted(NotifyWhen::Always), [true; 3]);
        assert_eq!(wanted(NotifyWhen::News), [false, true, true]);
        assert_eq!(wanted(NotifyWhen::Trouble), [false, false, true]);
    }
}
