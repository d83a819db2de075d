//! Trained networks outside of their catalog: listed, exported, run on a raw image, loaded by PyTorch.

use std::path::Path;
use std::process::Command;

use torcula::formats::nifti::read_image;

use crate::run;

/// Images have the shape and the spacing of the samples, so that PyTorch needs no resampling.
const PIPELINE: &str = r#"
torcula: 1
name: two_networks
seed: 5
vars: { data: null }
catalog: ${data}/catalog
artifacts: ${data}/derivatives
steps:
  registry: { ingest: { bids: "${data}/registry", require_truth: true } }
  prepared: { from: registry, stages: [skull_strip, { normalize: { peak: 100 } }], keep: [image] }
  split: { from: prepared, split: { parts: { train: 0.6, val: 0.2, test: 0.2 } } }
  shards: { from: split, stages: [{ resample: { shape: [64, 64, 16] } }], to: shards }
  unet: { from: shards, train: { levels: 3, filters: 4, epochs: 2, batch: 2, device: cpu } }
  swin:
    from: shards
    train: { model: swin_unetr, swin_unetr: { feature_size: 12 }, epochs: 1, batch: 2, device: cpu }
  predicted: { from: { split: test }, infer: { model: unet, device: cpu, keep: [probability] } }
"#;

/// What a user writes around the script of the README.
const BEFORE: &str = "import sys, nibabel, numpy as np\n\
    image = nibabel.load(sys.argv[1]).get_fdata(dtype='f4').T[None, None]\n\
    import torch; image = torch.from_numpy(image.copy())\n";
const AFTER: &str = "\nexpected = nibabel.load(sys.argv[2]).get_fdata(dtype='f4').T\n\
    print(np.abs(probability[0, 0].numpy() - expected).max())\n";
/// MONAI's network takes our tensors, all of them; the sample is padded to what it needs.
const SWIN: &str = "import json\n\
    from safetensors import safe_open\n\
    from monai.networks.nets import SwinUNETR\n\
    with safe_open('swin.safetensors', 'pt') as file:\n    \
        spec = json.loads(file.metadata()['torcula.network'])\n    \
        shape = spec['network']['swin_unetr']\n    \
        net = SwinUNETR(shape['channels'], shape['classes'], feature_size=shape['feature_size']).eval()\n    \
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})\n\
    with torch.no_grad():\n    \
        padded = torch.nn.functional.pad(image * spec['intensity_scale'], (0, 0, 0, 0, 0, 16))\n    \
        probability = net(padded).sigmoid()[:, :, :16]";

/// The Python of the README that loads a model.
fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, script) = text.split_once("```python\n").unwrap();
    script.split_once("```").unwrap().0.to_owned()
}

/// The largest difference between PyTorch's probability and ours; none where there is no PyTorch.
fn apart(folder: &Path, script: &str, image: &str, probability: &str) -> Option<f64> {
    let python = std::env::var_os("TORCULA_TORCH_PYTHON").filter(|path| !path.is_empty());
    let Some(python) = python else {
        println!("skipped: TORCULA_TORCH_PYTHON is not set (`make peers` sets it)");
        return None;
    };
    let script = format!("{BEFORE}{script}{AFTER}");
    let output = Command::new(python)
        .current_dir(folder)
        .env_remove("LD_LIBRARY_PATH")
        .args(["-c", &script, image, probability])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

#[test]
fn models_are_listed_exported_and_run_on_raw_images_and_in_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let shape =
        ["--cases", "12", "--sites", "2", "--seed", "3", "--matrix", "64", "--slices", "16"];
    run(&[&["synth", &at("registry")], &shape[..], &["--broken", "0"]].concat());
    std::fs::write(at("two.yaml"), PIPELINE).unwrap();
    let data = format!("data={}", folder.path().display());
    run(&["run", &at("two.yaml"), "--set", &data, "--progress", "none"]);
    let catalog = ["--catalog", &at("catalog")];
    let list = run(&[&["models"], &catalog[..]].concat());
    assert!(list.contains("levels 3, filters 4") && list.contains("feature_size 12"), "{list}");
    for (name, code) in [("unet", Some(at("unet3d.py"))), ("swin", None)] {
        let mut export = vec!["models", "export", name];
        let file = at(&format!("{name}.safetensors"));
        export.push(&file);
        export.extend(code.iter().flat_map(|path| ["--pytorch", path]));
        run(&[&export[..], &catalog[..]].concat());
    }

    let query = "SELECT c.image_uri AS raw, p.image_uri AS prepared, p.probability_uri AS found FROM predicted p \
                 JOIN cases c USING (case_id) ORDER BY case_id LIMIT 1";
    let row = run(&[&["sql", query, "--format", "csv"], &catalog[..]].concat());
    let [raw, prepared, found] = row.lines().nth(1).unwrap().split(',').collect::<Vec<_>>()[..]
    else {
        panic!("{row}")
    };
    let infer = |name: &str, image: &str, more: &[&str]| {
        let (model, mask) = (at(&format!("{name}.safetensors")), at("mask.nii"));
        let probability = at(&format!("{name}.nii"));
        let how = ["--set", "device=cpu", "--probability", &probability];
        run(&[&["infer", &model, image, &mask], &how[..], more].concat());
        probability
    };
    // The raw image goes through the stages that the pipeline's images went through.
    let from_raw = read_image(Path::new(&infer("unet", raw, &[])), 0).unwrap().0;
    let expected = read_image(Path::new(found), 0).unwrap().0;
    assert_eq!(from_raw.grid(), expected.grid());
    let pairs = from_raw.voxels().iter().zip(expected.voxels());
    let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 1e-5, "{most}");
    for (name, script) in [("unet", readme()), ("swin", SWIN.to_owned())] {
        let probability = infer(name, prepared, &["--prepared"]);
        if let Some(most) = apart(folder.path(), &script, prepared, &probability) {
            assert!(most < 1e-4, "{name}: {most}");
        }
    }
}
