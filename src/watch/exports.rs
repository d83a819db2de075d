//! Where the numbers of a run go: started with it, ended with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::otlp::Meters;
use super::prometheus::{folder_of, listen, render, serve, write_file};
use super::{Collector, Live, Tell, refuse};
use crate::error::{Error, Result};

/// How often the file is written.
const EVERY: Duration = Duration::from_secs(10);

/// What a run exports its numbers to. None of it can fail a run that has begun.
#[derive(Clone, Default)]
pub struct Exports {
    pub(super) file: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) collector: Option<Collector>,
    pub(super) tell: Option<Tell>,
}

impl std::fmt::Debug for Exports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exports")
            .field("file", &self.file)
            .field("listen", &self.listen)
            .field("collector", &self.collector)
            .finish_non_exhaustive()
    }
}

impl Exports {
    /// Whether the file can be written.
    pub(super) fn check(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let folder = folder_of(file);
        match folder.is_dir() && file.file_name().is_some() {
            true => Ok(()),
            false => Err(refuse(
                "--metrics",
                format!("there is no folder {}", folder.display()),
                "name a file in a folder that is there, as /var/lib/node_exporter/torcula.prom",
            )),
        }
    }

    /// Starts exporting a run's numbers, until the guard's end.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub fn start(&self, live: &Arc<Live>) -> Result<Exporting> {
        let mut exporting = Exporting { meters: None, stop: Vec::new(), threads: Vec::new() };
        if let Some(address) = self.listen {
            let server = listen(address)?;
            let live = Arc::clone(live);
            exporting.spawn("torcula-metrics", move |stopped| serve(&server, &live, &stopped))?;
        }
        if let Some(path) = self.file.clone() {
            let (live, tell) = (Arc::clone(live), self.tell.clone());
            exporting.spawn("torcula-textfile", move |stopped| {
                write_files(&path, &live, tell.as_ref(), &stopped);
            })?;
        }
        exporting.meters = self.collector.as_ref().and_then(|collector| collector.meters(live));
        Ok(exporting)
    }
}

/// Exports a run's numbers; when dropped, once more.
#[derive(Debug)]
pub struct Exporting {
    meters: Option<Meters>,
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Exporting {
    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> Result<()> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(stopped));
        self.threads
            .push(thread.map_err(|e| Error::resource(format!("no thread for metrics: {e}")))?);
        self.stop.push(stop);
        Ok(())
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.stop.clear();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        if let Some(meters) = self.meters.take() {
            meters.finish();
        }
    }
}

/// Writes the file again and again, and once more at the end.
fn write_files(path: &Path, live: &Live, tell: Option<&Tell>, stopped: &Receiver<()>) {
    let mut told = false;
    loop {
        let ended = stopped.try_recv() == Err(TryRecvError::Disconnected);
        if let Err(error) = write_file(path, &render(live))
            && !told
        {
            told = true;
            if let Some(tell) = tell {
                tell(&format!("the metrics {} are not written: {error}", path.display()));
            }
        }
        if ended {
            return;
        }
        let _ = stopped.recv_timeout(EVERY);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_file_is_whole_at_any_moment_and_holds_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("torcula.prom");
        let exports = Exports { file: Some(path.clone()), ..Exports::default() };
        let live = super::super::prometheus::tests::live();
        let exporting = exports.start(&live).unwrap();
        live.ended(0);
        drop(exporting);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("torcula_run_exit_code{pipeline=\"night\"} 0\n"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        let nowhere = Exports { file: Some("/nowhere/x.prom".into()), ..Exports::default() };
        assert!(nowhere.check().unwrap_err().reason().contains("/nowhere"));
    }
}
