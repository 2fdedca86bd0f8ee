//! The written graph against the reference tower and against itself.

use super::*;
use safetensors::SafeTensors;
use std::path::PathBuf;
use tract_onnx::prelude::*;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_llava_ov_a").join(file)
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let view = file.tensor(name).map_err(|e| Error::Argument(format!("{name}: {e}")))?;
    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Ok((view.shape().to_vec(), values))
}

fn config(storage: Storage) -> VisionExport {
    VisionExport {
        image_size: 75,
        patch_size: 14,
        hidden_size: 32,
        intermediate_size: 48,
        num_layers: 2,
        num_heads: 2,
        layer_norm_eps: 1e-6,
        text_hidden_size: 32,
        storage,
    }
}

fn export(path: &Path, config: &VisionExport) -> Result<()> {
    let bytes = std::fs::read(golden("model.safetensors")).unwrap();
    let model = SafeTensors::deserialize(&bytes).unwrap();
    write_vision(path, config, &|name| floats(&model, name))
}

fn run(path: &Path, frames: usize, pixels: &[f32]) -> Vec<Vec<f32>> {
    let model = tract_onnx::onnx().model_for_path(path).unwrap();
    let shape = [frames, 3, 75, 75];
    let model = model.with_input_fact(0, f32::fact(shape).into()).unwrap().into_optimized().unwrap();
    let input = Tensor::from_shape(&shape, pixels).unwrap();
    let outputs = model.into_runnable().unwrap().run(tvec!(input.into())).unwrap();
    outputs.iter().map(|t| t.to_plain_array_view::<f32>().unwrap().iter().copied().collect()).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn the_graph_gives_the_reference_tokens_for_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vision.onnx");
    export(&path, &config(Storage::F32)).unwrap();
    let bytes = std::fs::read(golden("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, pixels) = floats(&file, "pixel_values_videos").unwrap();
    let (_, pooled) = floats(&file, "pooled").unwrap();
    let found = run(&path, 3, &pixels);
    let difference = largest_difference(&found[0], &pooled);
    assert!(difference < 2e-5, "tokens differ from the reference by {difference}");
    let newline = read_initializers(&path).unwrap()["image_newline"].1.clone();
    assert_eq!(found[1], newline);
    let one = run(&path, 1, &pixels[..3 * 75 * 75]);
    assert!(largest_difference(&one[0], &pooled[..9 * 32]) < 2e-5);
}

#[test]
fn half_precision_storage_keeps_the_tokens_close() {
    let folder = tempfile::tempdir().unwrap();
    let (full, half) = (folder.path().join("full.onnx"), folder.path().join("half.onnx"));
    export(&full, &config(Storage::F32)).unwrap();
    export(&half, &config(Storage::F16)).unwrap();
    let size = |path: &Path| std::fs::metadata(path).unwrap().len() as f64;
    assert!(size(&half) < 0.7 * size(&full));
    let pixels: Vec<f32> = (0..3 * 75 * 75).map(|i| ((i * 37 % 255) as f32 / 127.5) - 1.0).collect();
    let difference = largest_difference(&run(&half, 1, &pixels)[0], &run(&full, 1, &pixels)[0]);
    assert!(difference > 0.0 && difference < 5e-3, "{difference}");
}

#[test]
fn initializers_read_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vision.onnx");
    export(&path, &config(Storage::F32)).unwrap();
    let file = read_vision(&path).unwrap();
    assert_eq!(file.config, config(Storage::F32));
    let bytes = std::fs::read(golden("model.safetensors")).unwrap();
    let model = SafeTensors::deserialize(&bytes).unwrap();
    let used = |name: &&str| !name.starts_with("language_model") && !name.contains("post_layernorm");
    let names: Vec<&str> = model.names().into_iter().filter(used).collect();
    assert_eq!(file.tensors.len(), names.len());
    for name in names {
        assert_eq!(file.tensors[name], floats(&model, name).unwrap(), "{name}");
    }
}

#[test]
fn a_misshapen_tensor_and_a_foreign_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vision.onnx");
    let wrong = VisionExport { intermediate_size: 64, ..config(Storage::F32) };
    let error = export(&path, &wrong).unwrap_err().to_string();
    assert!(error.contains("mlp.fc1.weight") && error.contains("64") && error.contains("48"), "{error}");
    assert!(!path.exists());
    assert!(export(&path, &VisionExport { num_heads: 5, ..config(Storage::F32) }).is_err());
    std::fs::write(&path, b"not protobuf at all").unwrap();
    assert!(read_vision(&path).unwrap_err().to_string().contains("vision.onnx"));
}

#[test]
fn the_pool_is_the_reference_bilinear_map() {
    let matrix = pool_matrix(27, 14);
    let value = |row: usize| -> f32 {
        (0..729).map(|i| f64::from(matrix[row * 729 + i]) * (27 * (i / 27) + i % 27) as f64).sum::<f64>()
            as f32
    };
    for (row, expected) in [(0, 13.0), (1, 14.92857), (2, 16.85714), (13, 38.07143), (13 * 14 + 13, 715.0)] {
        assert!((value(row) - expected).abs() < 2e-4, "row {row}: {} instead of {expected}", value(row));
    }
    assert!((value(6 * 14 + 9) - 342.78568).abs() < 1e-3);
    for (grid_in, grid_out) in [(1, 1), (2, 1), (4, 2), (5, 3), (27, 14)] {
        for row in pool_matrix(grid_in, grid_out).chunks_exact(grid_in * grid_in) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
