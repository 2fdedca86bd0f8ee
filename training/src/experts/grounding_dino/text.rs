//! The text side: class names become one caption, the caption token ids, blocks and positions.
//!
//! Comes in: class names and a BERT tokenizer (`tokenizer.json`). Goes out: `cat. remote control.` with `[CLS]` and `[SEP]`, the block that each token
//! belongs to, and, for graphs that want them, the self-attention mask of blocks and positions that start again in each (reference.md §4.2).

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use tokenizers::Tokenizer;

/// Longest caption in tokens.
pub const MAX_TOKENS: usize = 256;
/// `[CLS]`, `[SEP]`, `.` and `?` end a block.
const DELIMITERS: [&str; 4] = ["[CLS]", "[SEP]", ".", "?"];

/// A BERT tokenizer with the ids of its delimiters.
pub struct Words {
    tokenizer: Tokenizer,
    delimiters: Vec<u32>,
}

/// A caption as numbers; all lists have one entry per token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// The class that a token names; delimiters name none.
    pub class: Vec<Option<usize>>,
    /// Block number, from 0; a delimiter ends its block.
    pub block: Vec<usize>,
}

impl Words {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// A file that is no tokenizer or has no delimiters.
    pub fn load(path: &Path) -> Result<Self> {
        let mut tokenizer =
            Tokenizer::from_file(path).map_err(|e| anyhow!("{}: not a tokenizer: {e}", path.display()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| anyhow!("{}: {e}", path.display()))?;
        let id = |token: &&str| {
            tokenizer.token_to_id(token).ok_or_else(|| {
                anyhow!(
                    "{}: has no token {token}; Grounding DINO wants BERT's uncased WordPiece",
                    path.display()
                )
            })
        };
        let delimiters = DELIMITERS.iter().map(id).collect::<Result<_>>()?;
        Ok(Self { tokenizer, delimiters })
    }

    /// The caption of class names.
    ///
    /// # Errors
    /// No class, an empty one, one with a delimiter in it, or more than [`MAX_TOKENS`] tokens in all.
    pub fn caption(&self, classes: &[String]) -> Result<Caption> {
        ensure!(!classes.is_empty(), "name at least one class, such as --classes 'person,red cup'");
        let mut caption = Caption { ids: vec![self.delimiters[0]], class: vec![None], block: vec![0] };
        for (index, name) in classes.iter().enumerate() {
            let name = name.trim().to_lowercase();
            ensure!(
                !name.is_empty() && !name.contains(['.', '?']),
                "class {name:?}: a name has letters and neither `.` nor `?`"
            );
            let ids = self.encode(&name)?;
            for id in ids {
                caption.push(id, Some(index), index + 1);
            }
            caption.push(self.delimiters[2], None, index + 1);
        }
        caption.push(self.delimiters[1], None, classes.len() + 1);
        ensure!(
            caption.ids.len() <= MAX_TOKENS,
            "{} classes make {} tokens; at most {MAX_TOKENS} fit: name fewer at once",
            classes.len(),
            caption.ids.len()
        );
        Ok(caption)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| anyhow!("class {text:?}: {e}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Words of token ids, as `transformers` decodes them.
    ///
    /// # Errors
    /// Ids that the vocabulary does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, false).map_err(|e| anyhow!("decoding a phrase: {e}"))
    }
}

impl Caption {
    fn push(&mut self, id: u32, class: Option<usize>, block: usize) {
        self.ids.push(id);
        self.class.push(class);
        self.block.push(block);
    }

    /// Positions that start again in each block; `[CLS]` and `[SEP]` are at 0.
    pub fn positions(&self) -> Vec<i64> {
        let place = |at: usize| self.block[..at].iter().filter(|b| **b == self.block[at]).count() as i64;
        (0..self.ids.len()).map(place).collect()
    }

    /// Row by row: a token attends to its own block. `[CLS]` and `[SEP]` are blocks of their own.
    pub fn mask(&self) -> Vec<bool> {
        let row = |a: &usize| self.block.iter().map(|b| b == a).collect::<Vec<_>>();
        self.block.iter().flat_map(row).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small vocabulary with the ids that BERT gives the words of the reference's example.
    pub fn words() -> Words {
        let vocab: [(&str, u32); 11] = [
            ("[PAD]", 0),
            ("[UNK]", 100),
            ("[CLS]", 101),
            ("[SEP]", 102),
            (".", 1012),
            ("?", 1029),
            ("a", 1037),
            ("cat", 4937),
            ("remote", 6556),
            ("control", 2491),
            ("##ler", 3917),
        ];
        let vocab: serde_json::Map<String, serde_json::Value> =
            vocab.into_iter().map(|(word, id)| (word.to_string(), id.into())).collect();
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": vocab,
            },
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        Words::load(&path).unwrap()
    }

    #[test]
    fn ids_positions_and_mask_equal_the_reference() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/misc_golden.json");
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
        let wanted = &golden["gdino_mask"];
        let caption = words().caption(&["A cat".into(), "a remote control".into()]).unwrap();
        assert_eq!(serde_json::json!(caption.ids), wanted["ids"]);
        assert_eq!(serde_json::json!(caption.positions()), wanted["position_ids"]);
        let mask: Vec<Vec<u8>> = caption
            .mask()
            .chunks(caption.ids.len())
            .map(|row| row.iter().map(|b| u8::from(*b)).collect())
            .collect();
        assert_eq!(serde_json::json!(mask), wanted["mask"]);
        assert_eq!(caption.class[5], Some(1));
    }

    #[test]
    fn bad_classes_are_refused_with_words() {
        let words = words();
        for (classes, expected) in
            [(vec![], "at least one"), (vec!["a. cat".into()], "neither"), (vec![" ".into()], "letters")]
        {
            assert!(words.caption(&classes).unwrap_err().to_string().contains(expected));
        }
        let many: Vec<String> = (0..200).map(|_| "a cat".to_string()).collect();
        assert!(words.caption(&many).unwrap_err().to_string().contains("256"));
        assert_eq!(words.decode(&[6556, 2491, 3917]).unwrap(), "remote controller");
    }
}
