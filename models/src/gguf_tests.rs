//! A decoder written and read back.

use super::*;
use crate::text::{Tokenizer, save_tokenizer, train_bpe, world_added_tokens};
use candle_core::DType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn config(tied: bool) -> DecoderExport {
    DecoderExport {
        hidden_size: 64,
        intermediate_size: 96,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        vocab_size: 520,
        context_length: 4096,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tied,
    }
}

fn weights(config: &DecoderExport) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let names = config.tensor_names().into_iter();
    names
        .map(|t| {
            let values = (0..t.shape.iter().product()).map(|_| rng.random_range(-0.2f32..0.2)).collect();
            (t.hugging_face, (t.shape, values))
        })
        .collect()
}

fn tokenizer() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let corpus =
        (0..60).map(|i| format!("What does the red circle do in frame {i}? It moves left, then stops."));
    save_tokenizer(folder.path(), &train_bpe(corpus, 500, &world_added_tokens()).unwrap()).unwrap();
    folder
}

fn write(path: &Path, config: &DecoderExport, format: Format) -> Result<Vec<StoredTensor>> {
    let (folder, weights) = (tokenizer(), weights(config));
    write_decoder(path, "tiny", config, format, folder.path(), &|name| {
        weights.get(name).cloned().ok_or_else(|| Error::Argument(format!("{name} is missing")))
    })
}

#[test]
fn what_is_written_reads_back_within_the_formats_precision() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.gguf");
    for (format, tied, tolerance) in [
        (Format::F32, false, 0.0),
        (Format::F16, true, 1e-4),
        (Format::Q8_0, false, 1e-3),
        (Format::Q4_0, true, 0.03),
    ] {
        let config = config(tied);
        write(&path, &config, format).unwrap();
        let file = read_decoder(&path, &Device::Cpu).unwrap();
        assert_eq!(file.config, config);
        let weights = weights(&config);
        for name in config.tensor_names() {
            let tensor = file.tensors[&name.gguf].dequantize(&Device::Cpu).unwrap();
            let wanted = &weights[&name.hugging_face].1;
            let found: Vec<f32> =
                tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let worst = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance, "{} in {format:?}: {worst}", name.gguf);
        }
    }
}

#[test]
fn rows_that_do_not_divide_are_stored_otherwise_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.gguf");
    let stored = write(&path, &config(true), Format::Q4K).unwrap();
    let dtype = |name: &str| stored.iter().find(|t| t.name == name).unwrap().dtype.clone();
    assert_eq!(dtype("blk.0.attn_q.weight"), "q8_0");
    assert_eq!(dtype("blk.0.attn_q.bias"), "f32");
    assert_eq!(dtype("output_norm.weight"), "f32");
    assert_eq!(Format::Q8_0.stored("x", &[3, 33]), GgmlDType::F32);
    assert_eq!(Format::Q4K.stored("blk.0.ffn_up.weight", &[3, 256]), GgmlDType::Q4K);
    assert_eq!(Format::Q4K.stored("token_embd.weight", &[3, 256]), GgmlDType::Q6K);
}

#[test]
fn the_vocabulary_travels_with_its_kinds_and_padding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.gguf");
    write(&path, &config(true), Format::F32).unwrap();
    let metadata = read_decoder(&path, &Device::Cpu).unwrap().metadata;
    let list = |key: &str| metadata[key].to_vec().unwrap().clone();
    let (tokens, kinds) = (list("tokenizer.ggml.tokens"), list("tokenizer.ggml.token_type"));
    assert_eq!((tokens.len(), kinds.len()), (520, 520));
    let source = tokenizer();
    let tokenizer = Tokenizer::load(source.path()).unwrap();
    for (text, kind) in [("<|im_end|>", 3), ("<video>", 3), ("[20", 4), ("</id8>", 4), ("a", 1)] {
        let id = tokenizer.token_id(text).unwrap() as usize;
        assert_eq!(tokens[id].to_string().unwrap(), text);
        assert_eq!(kinds[id].to_i32().unwrap(), kind, "{text}");
    }
    assert_eq!(kinds[519].to_i32().unwrap(), 5);
    let eos = metadata["tokenizer.ggml.eos_token_id"].to_u32().unwrap();
    assert_eq!(Some(eos), tokenizer.token_id("<|im_end|>"));
    assert!(metadata["tokenizer.chat_template"].to_string().unwrap().contains("<|im_start|>"));
}

#[test]
fn broken_files_and_wrong_shapes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.gguf");
    let weights = weights(&config(true));
    let wrong = DecoderExport { intermediate_size: 128, ..config(true) };
    let source = tokenizer();
    let error = write_decoder(&path, "x", &wrong, Format::F32, source.path(), &|n| Ok(weights[n].clone()));
    assert!(error.unwrap_err().to_string().contains("mlp.gate_proj.weight"));
    let small = DecoderExport { vocab_size: 300, ..config(true) };
    let error = write_decoder(&path, "x", &small, Format::F32, source.path(), &|n| Ok(weights[n].clone()));
    assert!(error.unwrap_err().to_string().contains("300 rows"));
    write(&path, &config(true), Format::F32).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 3, 24, 4000, bytes.len() - 100] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(read_decoder(&path, &Device::Cpu).is_err(), "accepted {length} bytes");
    }
}
