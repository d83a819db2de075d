//! The machine under libtorch: which device computes, how many threads, how its errors read.

use std::sync::Once;

use tch::{Cuda, Device, TchError};
use torcula::engine::learner::{LearnerInfo, is_device};
use torcula::error::{Error, Result};

/// The device of that name: `cpu`, `cuda`, `cuda:N`, or `auto`, which is the first CUDA device where there is one.
///
/// # Errors
/// A configuration error for another name, or a CUDA device that is not there.
pub fn open(name: &str) -> Result<Device> {
    if !is_device(name) {
        return Err(Error::configuration(format!("device `{name}`: expected auto, cpu or cuda:N")));
    }
    let count = if name == "cpu" { 0 } else { cuda_devices() };
    let wanted = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" if count == 0 => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        _ => name.rsplit(':').next().and_then(|n| n.parse().ok()).unwrap_or_default(),
    };
    if wanted < count {
        return Ok(Device::Cuda(wanted));
    }
    Err(Error::configuration(format!("device `{name}`: libtorch finds {count} CUDA devices")).hint(
        "set device to cpu or auto; to use a GPU, link a full libtorch (.ci/libtorch --cuda says how)",
    ))
}

/// What libtorch has here.
pub fn describe() -> LearnerInfo {
    let count = cuda_devices();
    let cuda = (0..count).map(|n| format!("cuda:{n}"));
    LearnerInfo {
        libtorch: env!("TORCULA_LIBTORCH_VERSION").to_owned(),
        cuda: count > 0,
        devices: std::iter::once("cpu".to_owned()).chain(cuda).collect(),
        threads: all_cores(),
    }
}

/// The name of the device on which training number `place` of those that run at once is done: `auto` takes turns.
pub fn of_place(name: &str, place: usize) -> String {
    match cuda_devices() {
        count if name == "auto" && count > 1 => format!("cuda:{}", place % count),
        _ => name.to_owned(),
    }
}

/// How many trainings can run at once on a device of that name, with so many threads each of the cores.
pub fn places(name: &str, threads: usize, cores: usize) -> usize {
    let count = if name == "auto" { cuda_devices() } else { 0 };
    match name {
        _ if count > 0 => count,
        "auto" | "cpu" if threads > 0 => (cores / threads).max(1),
        _ => 1,
    }
}

/// Sets the number of CPU threads of libtorch in this thread and those that it starts; 0 uses all cores.
pub fn set_threads(threads: usize) {
    let threads = if threads == 0 { all_cores() } else { threads };
    tch::set_num_threads(threads.min(1024) as i32);
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// CUDA devices that can be used. The binary is linked to the CPU library alone, so that it starts without CUDA; the
/// CUDA library, where the linked libtorch has one, is loaded before the first question about it.
fn cuda_devices() -> usize {
    static LOADED: Once = Once::new();
    LOADED.call_once(load_cuda);
    if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or_default() } else { 0 }
}

/// Starts this program again with passive waiting in libgomp, unless the environment has an opinion. libgomp's threads
/// otherwise spin for a while after every kernel and starve the threads that prepare batches; the library reads the
/// setting when it is loaded, before `main`.
#[cfg(unix)]
pub fn wait_passively() {
    use std::os::unix::process::CommandExt;
    const POLICY: &str = "OMP_WAIT_POLICY";
    if std::env::var_os(POLICY).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(&program);
    command.arg0(arguments.next().unwrap_or_else(|| program.into()));
    // `exec` returns only where it failed; the program then goes on as it was started, only slower.
    let _ = command.args(arguments).env(POLICY, "passive").exec();
}

/// libtorch's error as ours: memory that ran out is a resource error, a shape that a network refuses is the data's, the rest is
/// a bug here.
pub fn torch_error(error: &TchError) -> Error {
    if let TchError::Shape(text) = error {
        return Error::data(text.clone())
            .hint("resample to another shape, or give the network other windows");
    }
    let text = error.to_string();
    let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    if text.contains("out of memory") || text.contains("can't allocate memory") {
        return Error::resource(format!("libtorch: {first}"))
            .hint("lower batch, filters or the shape of the samples");
    }
    Error::bug(format!("libtorch: {first}"))
}

/// Loads `libtorch_cuda.so` from the folders written into the binary, if it is there; it registers itself. Elsewhere than on
/// Linux the CUDA library is linked.
#[cfg_attr(target_os = "linux", expect(unsafe_code, reason = "dlopen has no safe wrapper"))]
fn load_cuda() {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::{CStr, c_char, c_int, c_void};
        const NAME: &CStr = c"libtorch_cuda.so";
        const RTLD_NOW: c_int = 2;
        const RTLD_GLOBAL: c_int = 0x100;
        unsafe extern "C" {
            fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        }
        // SAFETY: the name is a terminated string. The library is the one that belongs to the libtorch in use; its
        // initialisers are made to run at this point. The handle is never closed.
        unsafe { dlopen(NAME.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainings_share_the_cores_by_their_threads() {
        assert_eq!(places("cpu", 0, 8), 1, "one uses all cores");
        assert_eq!(places("cpu", 4, 8), 2);
        assert_eq!(places("cpu", 16, 8), 1);
        assert_eq!(places("cuda:1", 4, 8), 1, "one device");
        assert_eq!(of_place("cpu", 3), "cpu");
        assert_eq!(of_place("cuda:1", 3), "cuda:1");
    }

    #[test]
    fn a_device_that_is_not_there_is_a_configuration_error() {
        assert!(matches!(open("cpu"), Ok(Device::Cpu)));
        assert!(open("auto").is_ok());
        let reason = |name| open(name).err().map(|e| e.reason().to_owned()).unwrap_or_default();
        assert!(reason("cuda:200").contains("CUDA devices"), "{}", reason("cuda:200"));
        assert!(reason("tpu").contains("expected auto, cpu or cuda:N"));
    }

    #[test]
    fn libtorch_is_described() {
        let info = describe();
        assert!(info.libtorch.starts_with("2.13.0"), "{info:?}");
        assert_eq!(info.devices[0], "cpu");
        assert!(info.threads >= 1);
    }

    #[test]
    fn errors_are_sorted_by_fault() {
        use torcula::error::Fault;
        let fault = |text: &str| torch_error(&TchError::Torch(text.to_owned())).fault();
        assert_eq!(
            fault("DefaultCPUAllocator: can't allocate memory: you tried ..."),
            Fault::Resource
        );
        assert_eq!(fault("CUDA out of memory. Tried to allocate ..."), Fault::Resource);
        assert_eq!(fault("The size of tensor a (3) must match ..."), Fault::Bug);
    }
}
