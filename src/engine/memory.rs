//! The C library's allocator, told what a long run needs. Elsewhere than on Linux with glibc it is left as it is.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")
)]

/// For the start of a program.
///
/// Threads share two arenas: by default each thread fills one of its own, and what one thread frees the others cannot use, so
/// memory would grow with the number of threads and the length of the run. Freed volumes are kept for the next case instead
/// of being handed back: that saves the page faults, which cost N4 on a thinned grid more than half of its time.
pub fn prepare() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const ARENAS: libc::c_int = 2;
        const LARGEST_KEPT_BLOCK_BYTES: libc::c_int = 32 << 20;
        const KEPT_BYTES: libc::c_int = 512 << 20;
        // SAFETY: mallopt may be called at any time; it is called before other threads exist.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }
}

/// Hands free memory back to the system, wherever in the heap it lies.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}
