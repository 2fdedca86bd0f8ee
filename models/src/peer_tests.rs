//! Writes files for the programs of others to read: run with `UTR_PEERS=FOLDER cargo test -p utr-models -- --ignored
//! export_for_peers`, then `python tests/golden/peers.py FOLDER` from this crate's folder.

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

use crate::gguf::{DecoderExport, Format, write_decoder};
use crate::onnx::{Storage, VisionExport, write_vision};
use crate::text::{Tokenizer, save_tokenizer, train_bpe, world_added_tokens};

const SENTENCES: [&str; 12] = [
    "What does the red circle do after it stops?",
    "Which object moves left first?\nA. the blue square\nB. the green star\nAnswer with the letter.",
    "the red circle<id1>frame1:[20,40,120,140];frame32:[1000,0,980,100]</id1>",
    "It's 1,000 steps; they'll [205, 333] can't [20,41] frame33: <id9></id1>",
    "  two  spaces\n\n\n  and\ttabs \r\n end  ",
    "déjà vu, café — 好的，圆形移动了。 🦀🦀 ①②③ ½",
    "e\u{301}cole A\u{30A}ngström \u{1100}\u{1161}",
    "x=1;y=[2,3];z={\"a\":[0,20,40]}!!! ...???",
    "<|im_start|>user\n<video>\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "DON'T I'VE we'Re he'LL you'D",
    "\u{a0}\u{3000}wide\u{200b}spaces ",
    "",
];

fn tokenizer(folder: &Path) -> Tokenizer {
    let corpus = (0..400).map(|i| format!("{} {} The object {i} moves right.", SENTENCES[i % 8], i * 7));
    save_tokenizer(folder, &train_bpe(corpus, 900, &world_added_tokens()).unwrap()).unwrap();
    Tokenizer::load(folder).unwrap()
}

fn decoder(folder: &Path, tied: bool) {
    let config = DecoderExport {
        hidden_size: 64,
        intermediate_size: 160,
        num_layers: 3,
        num_heads: 4,
        num_kv_heads: 2,
        vocab_size: 912,
        context_length: 2048,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tied,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let weights: Vec<_> = config
        .tensor_names()
        .into_iter()
        .map(|t| {
            let norm = t.gguf.contains("norm");
            let size = t.shape.iter().product();
            let value = |r: f32| if norm { 1.0 + 0.2 * r } else { 0.25 * r };
            let values: Vec<f32> = (0..size).map(|_| value(rng.random_range(-1.0..1.0))).collect();
            (t.hugging_face, t.shape, values)
        })
        .collect();
    let find = |name: &str| {
        let (_, shape, values) = weights.iter().find(|w| w.0 == name).unwrap();
        Ok((shape.clone(), values.clone()))
    };
    for format in [Format::F32, Format::F16, Format::Q8_0, Format::Q4_0] {
        let path = folder.join(format!("decoder-{}.gguf", format.as_str()));
        write_decoder(&path, "tiny", &config, format, folder, &find).unwrap();
    }
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, shape, values)| {
            let name = name.trim_start_matches("language_model.").to_owned();
            (name, shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(n, s, b)| (n.clone(), TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    let json = serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 912,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": tied,
        "hidden_act": "silu", "torch_dtype": "float32", "use_sliding_window": false,
    });
    std::fs::write(folder.join("config.json"), json.to_string()).unwrap();
}

fn vision(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_llava_ov_a/model.safetensors");
    let bytes = std::fs::read(golden).unwrap();
    let model = SafeTensors::deserialize(&bytes).unwrap();
    for storage in [Storage::F32, Storage::F16] {
        let config = VisionExport {
            image_size: 75,
            patch_size: 14,
            hidden_size: 32,
            intermediate_size: 48,
            num_layers: 2,
            num_heads: 2,
            layer_norm_eps: 1e-6,
            text_hidden_size: 32,
            storage,
        };
        let path = folder.join(format!("vision-{storage:?}.onnx").to_lowercase());
        write_vision(&path, &config, &|name| {
            let view = model.tensor(name).unwrap();
            let values =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            Ok((view.shape().to_vec(), values))
        })
        .unwrap();
    }
}

#[test]
#[ignore = "writes files for other programs; needs UTR_PEERS"]
fn export_for_peers() {
    let folder = PathBuf::from(std::env::var_os("UTR_PEERS").expect("UTR_PEERS names the folder to write"));
    for (name, tied) in [("tied", true), ("untied", false)] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let tokenizer = tokenizer(&folder);
        let tokens: Vec<_> =
            SENTENCES.iter().map(|text| serde_json::json!([text, tokenizer.encode(text).unwrap()])).collect();
        std::fs::write(folder.join("tokens.json"), serde_json::to_string(&tokens).unwrap()).unwrap();
        decoder(&folder, tied);
    }
    vision(&folder);
}
