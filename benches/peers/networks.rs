//! Our side of `networks.py`: outputs of networks, and the time of a training step.
//!
//! `networks outputs FOLDER` runs the network of `model.safetensors` on the image of `image.safetensors` and writes
//! `out.safetensors`: the logits, or while training those of every head. `networks step FOLDER STEPS` prints the time of a training
//! step in ms: forward, loss, backward, Adam.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use tch::{Device, Kind, Tensor};
use torcula_training::checkpoint::{self, Checkpoint};
use torcula::engine::learner::TrainParams;
use torcula_training::loss::Loss;
use torcula_training::model::network::Network;
use torcula_training::optimizer::Optimizer;
use torcula_training::train_loop::keys;

/// The learning rate.
const RATE: f64 = 1e-3;

fn network(folder: &Path) -> Network {
    let file = Checkpoint::read(&folder.join("model.safetensors")).unwrap();
    let network = Network::new(file.json(keys::NETWORK).unwrap(), 0, Device::Cpu).unwrap();
    file.load_all(&network.store).unwrap();
    network
}

fn tensor(folder: &Path, name: &str) -> Tensor {
    let file = Checkpoint::read(&folder.join("image.safetensors")).unwrap();
    let tensor = Tensor::zeros(file.shape(name).unwrap(), (Kind::Float, Device::Cpu));
    file.load(name, &tensor).unwrap();
    tensor
}

fn outputs(folder: &Path) {
    let (network, images) = (network(folder), tensor(folder, "image"));
    let mut found =
        vec![("logits".to_owned(), tch::no_grad(|| network.logits(&images, false).unwrap()))];
    for (number, head) in network.heads(&images).unwrap().into_iter().enumerate() {
        found.push((format!("head{number}"), head.logits));
    }
    let named = found.iter().map(|(name, tensor)| (name.clone(), tensor));
    checkpoint::write(&folder.join("out.safetensors"), named, &BTreeMap::new()).unwrap();
}

/// Prints the time of every step, the first two left out, in ms.
fn step(folder: &Path, steps: usize) {
    let threads = std::env::var("OMP_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    tch::set_num_threads(threads.unwrap_or(1));
    let network = network(folder);
    let (images, truths) = (tensor(folder, "image"), tensor(folder, "truth"));
    let params = TrainParams::default();
    let (loss, mut adam) = (Loss::of(&params), Optimizer::new(&network.store, &params).unwrap());
    let mut times = Vec::new();
    for _ in 0..steps + 2 {
        let start = Instant::now();
        let mut total: Option<Tensor> = None;
        for head in network.heads(&images).unwrap() {
            let share = loss.of_batch(&head.logits, &truths).unwrap() * head.weight;
            total = Some(total.map_or_else(|| share.shallow_clone(), |t| t + &share));
        }
        let total = total.unwrap();
        total.double_value(&[]);
        total.backward();
        adam.step(&network.store, RATE).unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("{:?}", &times[2..]);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [verb, folder] if verb == "outputs" => outputs(Path::new(folder)),
        [verb, folder, steps] if verb == "step" => step(Path::new(folder), steps.parse().unwrap()),
        _ => println!("usage: networks outputs FOLDER | step FOLDER STEPS; benches/peers/networks.py calls it"),
    }
}
