//! Work that may panic over its input, kept from telling it.

/// Does the work on a thread of its own; none where it panicked. The program does not print panics of threads with this name,
/// since their messages may quote what was read.
pub fn quietly<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("torcula-case-reader".to_owned());
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}
