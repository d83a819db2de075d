//! One setting of glibc's allocator, and the only unsafe call here.
#![expect(unsafe_code, reason = "mallopt has no safe wrapper")]

/// Makes threads share two arenas. By default each thread fills an arena of its own, and what one thread frees the others
/// cannot use: memory would grow with the number of threads and the length of the run.
pub fn share_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt may be called at any time; it is called before other threads exist.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}
