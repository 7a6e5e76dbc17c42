//! Grad-CAM: equal to PyTorch's, and where the evidence is.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use spinexr_models::DenseNetConfig;
use spinexr_models::explain::{for_explaining, grad_cam};
use spinexr_models::weights::{Strictness, load_state_dict, state_dict};

use crate::case::Case;
use crate::classifiers::tiny;
use crate::formula;

/// Grad-CAM of the last map by PyTorch, a forward hook and autograd.
const GRAD_CAM: &str = include_str!("../../../../tests/golden/densenet_tiny/grad_cam.json");

#[test]
fn grad_cam_is_pytorchs() {
    let reference: Value = serde_json::from_str(GRAD_CAM).unwrap();
    let case = Case::open("densenet_tiny");
    let device = Device::flex().autodiff();
    let values = formula::input("input_cam", 3 * 160 * 128, 0.0, 1.0);
    let images = Tensor::<4>::from_data(TensorData::new(values, [1, 3, 160, 128]), &device);
    for expected in reference["cases"].as_array().unwrap() {
        let relu = expected["final_relu"].as_bool().unwrap();
        let class = expected["cls"].as_u64().unwrap() as usize;
        let network = for_explaining(case.filled(tiny().with_final_relu(relu).init(&device)));
        let map = grad_cam(&network, images.clone(), class).pop().unwrap();
        let shape: Vec<u64> =
            expected["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        assert_eq!(shape, [map.height as u64, map.width as u64]);
        let values: Vec<f64> =
            expected["map"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let peak = values.iter().copied().fold(0.0, f64::max);
        assert!(peak > 0.0);
        let differences = map.values.iter().zip(&values).map(|(a, b)| (f64::from(*a) - b).abs());
        // Sums of terms of both signs: the values are a hundredth of the terms.
        case.report(
            &format!("grad_cam/relu {relu}/{class}"),
            differences.fold(0.0, f64::max),
            1e-5 * peak.max(0.1),
        );
    }
}

#[test]
fn the_map_is_highest_where_the_evidence_is() {
    // Every convolution takes a mean and every norm leaves it: the network measures how bright a place is, and the
    // classifier how bright the film is.
    let device = Device::flex().autodiff();
    let config = DenseNetConfig::mini();
    let mut state = state_dict(&config.init(&Device::flex()));
    for (name, entry) in &mut state {
        let fan_in: usize = entry.shape.iter().skip(1).product();
        let value = match name.rsplit('.').next().unwrap() {
            "weight" if entry.shape.len() > 1 => 1.0 / fan_in as f32,
            "weight" | "running_var" => 1.0,
            _ => 0.0,
        };
        entry.values.fill(value);
    }
    let network = load_state_dict(config.init(&device), &state, Strictness::Exact).unwrap();
    let network = for_explaining(network);
    let (height, width) = (256usize, 192usize);
    for (x, y) in [(40, 50), (150, 60), (100, 130), (30, 210), (160, 220)] {
        let pixels: Vec<f32> = (0..height * width)
            .map(|i| {
                let inside = (i % width).abs_diff(x) <= 20 && (i / width).abs_diff(y) <= 20;
                if inside { 1.0 } else { 0.05 }
            })
            .collect();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [1, 1, height, width]), &device);
        let map = grad_cam(&network, images, 0).pop().unwrap();
        assert_eq!((map.height, map.width), (8, 6));
        let (px, py) = map.peak_px();
        let within = (px - x as f32).abs() <= 20.0 && (py - y as f32).abs() <= 20.0;
        assert!(within, "evidence at {x}, {y}, map highest at {px}, {py}: {:?}", map.values);
        let far = map.at(width as f32 - x as f32, height as f32 - y as f32);
        if x.abs_diff(width - x) > 60 {
            assert!(far < 0.6 * map.peak(), "{far} on the other side, {} at the peak", map.peak());
        }
    }
}
