//! What stages say of their memory against what they allocate: never more than predicted, and not much less, or fewer cases
//! than fit would be admitted at once. In a program of its own, because its allocator counts.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(unsafe_code, reason = "an allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};
use torcula::engine::{Case, CaseInput, CaseStop, Context, Slot, Stage};
use torcula::formats::nifti::{self, WriteOptions};
use torcula::imaging::phantom;
use torcula::stages::StageSpec;
use torcula::stages::score::Score;
use torcula::volume::{Grid, Image, Mask};

/// The system's allocator, counting bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    PEAK.fetch_max(IN_USE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Counted as if it moved: for a moment both may be there.
        add(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        IN_USE.fetch_sub(layout.size(), Relaxed);
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, and the most bytes that it had in use beside those from before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let found = work();
    (found, (PEAK.load(Relaxed) - before) as u64)
}

/// A case with what a stage may read. To score, there are lesions all over the volume, the most that can come.
fn case(shape: [usize; 3], stage: &str) -> Case {
    let (image, truth, brain) = phantom::simple(shape, [1.0, 1.0, 5.0], 3);
    let mut case = Case::new(CaseInput { case_id: "a".to_owned(), ..CaseInput::default() });
    case.truth = Some(truth);
    if stage == "score" {
        (case.truth, case.prediction) = (Some(lesions(&image, 0)), Some(lesions(&image, 3)));
    }
    (case.image, case.brain) = (Some(image), Some(brain));
    case
}

/// Rods of 6 voxels, one voxel apart.
fn lesions(image: &Image, shift: usize) -> Mask {
    let mut mask = Mask::filled(&image.grid(), 0);
    let voxels = mask.voxels_mut().iter_mut().enumerate();
    voxels.for_each(|(i, v)| *v = u8::from(!(i + shift).is_multiple_of(7)));
    mask
}

/// Bytes of the volumes that the case holds.
fn held(case: &Case) -> u64 {
    let bytes =
        |s: &Slot| case.grid(*s).map_or(0, |g: Grid| g.voxels() as u64 * s.bytes_per_voxel());
    Slot::ALL.iter().map(bytes).sum()
}

/// Predicted and actual bytes of a stage on a case.
fn measure(stage: &dyn Stage, shape: [usize; 3]) -> (u64, u64) {
    let mut case = case(shape, stage.name());
    let voxels = shape.iter().product::<usize>() as u64;
    let reads = |s: &Slot| {
        [stage.reads(), stage.optional(), stage.carries()].iter().any(|all| all.contains(s))
    };
    for slot in Slot::ALL.iter().filter(|s| !reads(s)) {
        case.clear(*slot);
    }
    if stage.name() == "resample" {
        case.clear(Slot::Brain);
    }
    let mut slots: Vec<Slot> = Slot::ALL.into_iter().filter(|s| case.has(*s)).collect();
    slots.extend(stage.writes());
    slots.sort_unstable();
    slots.dedup();
    let volumes: u64 = slots.iter().map(|s| s.bytes_per_voxel() * voxels).sum();
    let (before, context) = (held(&case), Context::new(1, CaseStop::default()));
    let (done, beside) = peak(|| stage.run(&mut case, &context));
    done.unwrap();
    (volumes + stage.working_bytes(voxels), before + beside)
}

fn stages() -> Vec<(&'static str, Value)> {
    vec![
        ("qc", Value::Null),
        ("skull_strip", Value::Null),
        ("skull_strip", json!({"largest_component": true, "fill_holes": true})),
        ("n4", Value::Null),
        ("n4", json!({"iterations": [10], "shrink": 1})),
        ("n4", json!({"iterations": [3, 3], "shrink": 2})),
        ("normalize", Value::Null),
        ("normalize", json!({"scope": "slice"})),
        ("resample", json!({"shape": [96, 96, 24]})),
        ("resample", json!({"shape": [300, 280, 30]})),
        ("resample", json!({"shape": [96, 96, 24], "interpolation": "cubic"})),
        (
            "augment",
            json!({
                "affine_slices": {"probability": 1.0}, "bias_field": {"probability": 1.0},
                "flip": {"probability": 1.0}, "gamma": {"probability": 1.0},
            }),
        ),
    ]
}

#[test]
fn stages_take_what_they_said_and_not_much_less() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let mut wrong = Vec::new();
    for shape in [[256, 256, 25], [128, 128, 30]] {
        let mut judge = |name: String, (predicted, actual): (u64, u64)| {
            let said = format!(
                "{name} {shape:?}: predicted {predicted}, took {actual}, ratio {:.2}",
                predicted as f64 / actual as f64
            );
            if predicted < actual || predicted > actual + actual / 2 {
                wrong.push(said);
            }
        };
        for (name, parameters) in stages() {
            let said = format!("{name} {parameters}");
            let stage = StageSpec::from_parts(name, parameters).unwrap().stage();
            judge(said, pool.install(|| measure(stage.as_ref(), shape)));
        }
        judge("score".to_owned(), pool.install(|| measure(&Score, shape)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    files_take_a_fixed_amount();
}

/// Reading and writing take no more beside the volume than the engine allows every case, whatever its size.
fn files_take_a_fixed_amount() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii.gz");
    for shape in [[64, 64, 10], [256, 256, 60]] {
        let (image, _, brain) = phantom::simple(shape, [1.0, 1.0, 5.0], 3);
        let options = WriteOptions::default();
        let (_, written) = peak(|| nifti::write_image_i16(&path, &image, &options).unwrap());
        let (read, beside) = peak(|| nifti::read_image(&path, 0).unwrap());
        let read = beside - 4 * read.0.voxels().len() as u64;
        nifti::write_mask(&path, &brain, &options).unwrap();
        let (mask, beside) = peak(|| nifti::read_mask(&path).unwrap());
        let masked = beside - mask.0.voxels().len() as u64;
        for (what, bytes) in [("write", written), ("read", read), ("read a mask", masked)] {
            assert!(bytes < 2 << 20, "{what} {shape:?}: {bytes}");
        }
    }
}
