//! Tests of [`super`].

use super::super::ranks::Alone;
use super::*;

fn alone(vars: impl IntoIterator<Item = (String, Var)>) -> AdamW {
    AdamW::new(vars, 0, 1)
}

fn step(optimizer: &mut AdamW, grads: Vec<f32>) -> f64 {
    let grads = [grads];
    let norm = squares(&grads).iter().sum::<f64>().sqrt();
    optimizer.step(&grads, norm, &schedule(false), 1.0, &[]).unwrap();
    norm
}

fn schedule(muon: bool) -> Schedule {
    toml::from_str(&format!("lr = 0.1\nmuon = {muon}\nweight_decay = 0.1")).unwrap()
}

#[test]
fn adamw_makes_the_textbook_first_step() {
    let var = Var::from_vec(vec![1.0f32, -2.0], (1, 2), &Device::Cpu).unwrap();
    let mut optimizer = alone([("x".to_string(), var.clone())]);
    let norm = step(&mut optimizer, vec![0.3, -0.4]);
    assert!((norm - 0.5).abs() < 1e-6);
    // Unbiased moments of one gradient are the gradient and its square: the step is lr times its sign, plus the decay.
    let got = var.as_detached_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let want = [1.0 - 0.01 - 0.1, -2.0 + 0.02 + 0.1];
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}");
}

#[test]
fn small_steps_add_up_in_the_master_of_a_narrow_variable() {
    let wide = Tensor::from_vec(vec![1.0f32, -2.0], (1, 2), &Device::Cpu).unwrap();
    let var = Var::from_tensor(&wide.to_dtype(DType::BF16).unwrap()).unwrap();
    let name = "x".to_string();
    let mut optimizer =
        alone([(name.clone(), var.clone())]).with_masters(&Weights::from([(name, wide.clone())])).unwrap();
    let mut twin = alone([("x".to_string(), Var::from_tensor(&wide).unwrap())]);
    let small: Schedule = toml::from_str("lr = 1e-4").unwrap();
    for _ in 0..100 {
        for optimizer in [&mut optimizer, &mut twin] {
            optimizer.step(&[vec![0.3, -0.4]], 0.5, &small, 1.0, &[]).unwrap();
        }
    }
    // A single step is less than half of what tells 1 from its neighbours in bf16.
    let masters = values(&Var::from_tensor(&optimizer.wide(&mut Alone).unwrap()["x"]).unwrap()).unwrap();
    assert_eq!(masters, values(&twin.vars()[0]).unwrap());
    let rounded = values(&var).unwrap();
    assert!((rounded[0] - 0.99).abs() < 0.003 && (rounded[1] + 1.99).abs() < 0.006, "{rounded:?}");
}

#[test]
fn muon_steps_have_singular_values_near_one() {
    let data: Vec<f32> = (0..12 * 5).map(|i| ((i * 37 % 17) as f32 - 8.0) / 8.0).collect();
    let x = orthogonal(&Tensor::from_vec(data, (12, 5), &Device::Cpu).unwrap()).unwrap();
    let gram = x.t().unwrap().matmul(&x).unwrap().to_vec2::<f32>().unwrap();
    for (i, row) in gram.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            let close = if i == j { (0.4..1.6).contains(value) } else { value.abs() < 0.4 };
            assert!(close, "({i}, {j}) is {value}");
        }
    }
}

#[test]
fn the_schedule_warms_up_and_falls_to_its_floor() {
    let s: Schedule = toml::from_str("lr = 1.0\nwarmup = 0.1\nfloor = 0.2").unwrap();
    assert!((s.factor(0, 100) - 0.1).abs() < 1e-9 && (s.factor(9, 100) - 1.0).abs() < 1e-9);
    assert!(s.factor(50, 100) < 1.0 && (s.factor(100, 100) - 0.2).abs() < 1e-3);
}

#[test]
fn moments_survive_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let var = || Var::from_vec(vec![1.0f32; 4], (2, 2), &Device::Cpu).unwrap();
    let mut a = alone([("w".to_string(), var())]);
    step(&mut a, vec![0.1, 0.2, 0.3, 0.4]);
    save(&a.moments(&mut Alone).unwrap(), &folder.path().join("o")).unwrap();
    let mut b = alone([("w".to_string(), Var::from_tensor(a.vars()[0].as_tensor()).unwrap())]);
    b.restore(&folder.path().join("o")).unwrap();
    for optimizer in [&mut a, &mut b] {
        step(optimizer, vec![0.4, 0.3, 0.2, 0.1]);
    }
    let values = |o: &AdamW| o.vars()[0].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(&a), values(&b));
}
