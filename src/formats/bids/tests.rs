//! Scans of folders made for the test, and of the real one.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "says which test was skipped and why")]

use serde_json::json;

use super::*;
use crate::error::Fault;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for file in files {
            folder.put(file, "x");
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn scan(&self) -> Scan {
        scan(self.0.path(), &ScanOptions::default()).unwrap()
    }

    /// A path's name below the folder.
    fn short(&self, path: Option<&PathBuf>) -> String {
        let root = self.0.path().canonicalize().unwrap();
        path.map_or("-".into(), |p| {
            p.canonicalize().unwrap().strip_prefix(root).unwrap().display().to_string()
        })
    }
}

fn ids(scan: &Scan) -> Vec<&str> {
    scan.cases.iter().map(|c| c.case_id.as_str()).collect()
}

fn excluded(scan: &Scan) -> Vec<&str> {
    scan.findings.iter().filter(|f| f.excluded).map(|f| f.case_id.as_str()).collect()
}

#[test]
fn a_raw_folder_with_sessions_and_inheritance() {
    let f = Folder::new(&[
        "dwi.json",
        "dwi.bval",
        "acq-b0_dwi.json",
        "sub-02/ses-a/dwi/sub-02_ses-a_dwi.nii.gz",
        "sub-02/ses-b/dwi/sub-02_ses-b_dwi.nii.gz",
        "sub-02/ses-b/dwi/sub-02_ses-b_dwi.json",
        "sub-02/ses-b/dwi/sub-02_ses-b_dwi.bval",
        "sub-02/sub-02_dwi.json",
        "sub-01/dwi/sub-01_dwi.nii",
        "sub-01/dwi/sub-01_acq-b0_dwi.nii.gz",
        "sub-01/dwi/sub-01_rec-ADC_dwi.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "derivatives/masks/sub-01/dwi/sub-01_space-MNI_desc-lesion_mask.nii.gz",
        "derivatives/masks/sub-01/dwi/sub-01_space-TRACE_desc-lesion_mask.nii.gz",
        "derivatives/masks/sub-02/sub-02_ses-b_label-lesion_mask.nii.gz",
    ]);
    f.put("participants.tsv", "participant_id\tage\tsite\nsub-01\t71\t007\n02\tn/a\tB\n");
    f.put("sub-02/sub-02_sessions.tsv", "session_id\tnihss\nses-b\t4\n");
    let s = f.scan();
    assert_eq!(ids(&s), ["sub-01", "sub-02_ses-a", "sub-02_ses-b"]);
    let [one, a, b] = &s.cases[..] else { unreachable!() };
    assert_eq!(f.short(one.image.as_ref()), "sub-01/dwi/sub-01_dwi.nii");
    assert_eq!(f.short(one.b0.as_ref()), "sub-01/dwi/sub-01_acq-b0_dwi.nii.gz");
    assert_eq!(f.short(one.adc.as_ref()), "sub-01/dwi/sub-01_rec-ADC_dwi.nii.gz");
    assert_eq!(f.short(one.flair.as_ref()), "sub-01/anat/sub-01_FLAIR.nii.gz");
    assert!(f.short(one.truth.as_ref()).ends_with("space-TRACE_desc-lesion_mask.nii.gz"));
    assert_eq!(f.short(one.bval.as_ref()), "dwi.bval");
    assert_eq!(one.variables.to_map(), *json!({"age": 71, "site": "007"}).as_object().unwrap());
    assert_eq!((f.short(a.truth.as_ref()), f.short(a.sidecar.as_ref())), ("-".into(), "-".into()));
    assert_eq!(a.inherited_sidecars.len(), 2);
    assert_eq!((b.subject_id.as_str(), b.session_id.as_deref()), ("sub-02", Some("ses-b")));
    let sidecars: Vec<String> =
        b.sidecars().iter().map(|p| f.short(Some(&p.to_path_buf()))).collect();
    let own = "sub-02/ses-b/dwi/sub-02_ses-b_dwi.json";
    assert_eq!(sidecars, ["dwi.json", "sub-02/sub-02_dwi.json", own]);
    assert_eq!(f.short(b.bval.as_ref()), "sub-02/ses-b/dwi/sub-02_ses-b_dwi.bval");
    assert_eq!(
        b.variables.to_map(),
        *json!({"age": null, "site": "B", "nihss": 4}).as_object().unwrap()
    );
    assert_eq!(excluded(&s), [] as [&str; 0]);
    assert!(s.findings.iter().any(|x| x.case_id == "sub-02_ses-a" && x.reason.contains("mask")));
}

#[test]
fn isles_2022_with_and_without_inner_folders() {
    let stem = "sub-strokecase0001_ses-0001";
    for (inner, above, mask) in [
        ("", "rawdata/", "derivatives/sub-strokecase0001/ses-0001/"),
        ("dwi/", "", "derivatives/sub-strokecase0001/ses-0001/"),
        ("dwi/", "rawdata/", "rawdata/sub-strokecase0001/ses-0001/"),
    ] {
        let visit = format!("{above}sub-strokecase0001/ses-0001/{inner}{stem}");
        let f = Folder::new(&[
            &format!("{visit}_dwi.nii.gz"),
            &format!("{visit}_adc.nii.gz"),
            &format!("{visit}_dwi.json"),
            &format!("{mask}{stem}_msk.nii.gz"),
        ]);
        let s = f.scan();
        let case = &s.cases[0];
        assert_eq!(f.short(case.truth.as_ref()), format!("{mask}{stem}_msk.nii.gz"));
        assert!(case.adc.is_some() && case.sidecar.is_some() && s.findings.is_empty());
        if above == "rawdata/" {
            let inside = scan(&f.path("rawdata"), &ScanOptions::default()).unwrap();
            assert_eq!(f.short(inside.cases[0].truth.as_ref()), f.short(case.truth.as_ref()));
        }
    }
}

#[test]
fn broken_pieces_leave_the_other_cases_alone() {
    let f = Folder::new(&[
        "sub-1/dwi/sub-1_dwi.nii.gz",
        "sub-2/dwi/sub-2_dwi.nii.gz",
        "sub-3/anat/sub-3_FLAIR.nii.gz",
        "sub-a b/dwi/x_dwi.nii.gz",
        "sub-5/dwi/sub-9_dwi.nii.gz",
        "sub-6/dwi/sub-6_dwi.nii.gz",
        "sub-7/dwi/sub-7_dwi.nii.gz",
    ]);
    f.put(
        "participants.tsv",
        "participant_id\tage\nsub-1\t50\nsub-2\t60\nsub-2\t61\n../evil\t1\nsub-8\t1\nsub-6\t1\t2\nsub-1\t50\n",
    );
    let s = f.scan();
    assert_eq!(ids(&s), ["sub-1", "sub-7"]);
    assert_eq!(excluded(&s), ["___evil", "sub-2", "sub-3", "sub-5", "sub-6", "sub-8", "sub-a_b"]);
    assert!(s.findings.iter().any(|x| x.case_id == "sub-7" && x.reason.contains("no row")));
    assert!(s.findings.iter().any(|x| x.case_id == "sub-1" && x.reason.contains("twice")));
    assert_eq!(s, f.scan());
}

#[test]
fn links_do_not_lead_out() {
    let outside = Folder::new(&["secret_dwi.nii.gz", "sub-9/dwi/sub-9_dwi.nii.gz"]);
    let f = Folder::new(&["annex/image", "sub-1/dwi/a", "sub-2/dwi/a", "sub-3/dwi/a"]);
    let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, f.path(at)).unwrap();
    link(Path::new("../../annex/image"), "sub-1/dwi/sub-1_dwi.nii.gz");
    link(&outside.path("secret_dwi.nii.gz"), "sub-2/dwi/sub-2_dwi.nii.gz");
    link(Path::new("nowhere"), "sub-3/dwi/sub-3_dwi.nii.gz");
    link(&outside.path("sub-9"), "sub-9");
    link(Path::new("."), "sub-1/again");
    let s = f.scan();
    assert_eq!(ids(&s), ["sub-1"]);
    assert_eq!(excluded(&s), ["sub-2", "sub-3", "sub-9"]);
    let reason =
        |id: &str| &s.findings.iter().find(|x| x.case_id == id && x.excluded).unwrap().reason;
    assert!(reason("sub-2").contains("out of the folder"));
    assert!(reason("sub-3").contains("does not exist"));
}

#[test]
fn several_images_are_one_choice_and_a_note() {
    let f = Folder::new(&[
        "sub-1/dwi/sub-1_run-2_dwi.nii.gz",
        "sub-1/dwi/sub-1_run-1_dwi.nii.gz",
        "sub-2/dwi/sub-2_dwi.nii.gz",
        "sub-2/dwi/sub-2_rec-TRACE_dwi.nii.gz",
    ]);
    let s = f.scan();
    assert!(s.cases[0].image.as_ref().is_some_and(|p| p.ends_with("sub-1_run-1_dwi.nii.gz")));
    assert!(s.cases[1].image.as_ref().is_some_and(|p| p.ends_with("sub-2_rec-TRACE_dwi.nii.gz")));
    assert_eq!(s.findings.len(), 1);
}

#[test]
fn wrong_folders_and_tables_are_errors() {
    let f = Folder::new(&["readme.txt"]);
    let error = scan(f.0.path(), &ScanOptions::default()).unwrap_err();
    assert!(error.reason().contains("readme.txt") && error.fault() == Fault::Configuration);
    assert!(scan(&f.path("absent"), &ScanOptions::default()).is_err());
    assert!(scan(&f.path("readme.txt"), &ScanOptions::default()).is_err());
    f.put("sub-1/dwi/sub-1_dwi.nii.gz", "x");
    f.put("participants.tsv", "participant\tNIHSS\nsub-1\t3\n");
    let error = scan(f.0.path(), &ScanOptions::default()).unwrap_err();
    assert!(error.reason().contains("`participant_id`") && error.fault() == Fault::Data);
    f.put("participants.tsv", "participant_id\tNIHSS\nsub-1\t3\n");
    let mut options =
        ScanOptions { participants: BTreeMap::from([("nihss".into(), "NIHS".into())]) };
    let error = scan(f.0.path(), &options).unwrap_err();
    assert!(error.advice().unwrap().contains("`NIHSS`") && error.fault() == Fault::Configuration);
    options.participants.insert("nihss".into(), "NIHSS".into());
    assert_eq!(scan(f.0.path(), &options).unwrap().cases[0].variables.to_map()["nihss"], 3);
}

#[test]
fn the_real_isles_case_is_found_whole() {
    let Some(root) = std::env::var_os("TORCULA_REAL_DATA") else {
        eprintln!("skipped: TORCULA_REAL_DATA names no folder of real images");
        return;
    };
    let s = scan(&PathBuf::from(root).join("isles22"), &ScanOptions::default()).unwrap();
    assert_eq!((ids(&s), s.findings.len()), (vec!["sub-strokecase0009_ses-0001"], 0));
    let case = &s.cases[0];
    assert!(case.truth.is_some() && case.adc.is_some() && case.flair.is_some());
    let facts = crate::formats::sidecar::read(&case.sidecars()).unwrap();
    assert_eq!((facts.vendor.as_deref(), facts.b_value_s_per_mm2), (Some("Philips"), Some(800.0)));
    assert_eq!((facts.field_strength_t, facts.slice_thickness_mm), (Some(3.0), Some(2.0)));
    assert!(facts.repetition_time_ms.unwrap() > 9900.0 && facts.echo_time_ms == Some(55.0));
}
