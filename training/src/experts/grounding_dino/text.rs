//! The text side: class names become one caption, the caption token ids, blocks and positions.
//!
//! Comes in: class names and a BERT tokenizer (`tokenizer.json`). Goes out: `cat. remote control.` with `[CLS]` and `[SEP]`, the block that each token
//! belongs to, and, for graphs that want them, the self-attention mask of blocks and positions that start again in each (reference.md §4.2).

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use tokenizers::Tokenizer;

/// Longest caption in tokens.
pub const MAX_TOKENS: usize = 256;
/// What ends a block, and the id that the networks know it by.
const DELIMITERS: [(&str, u32); 4] = [("[CLS]", CLS), ("[SEP]", SEP), (".", STOP), ("?", 1029)];
const CLS: u32 = 101;
const SEP: u32 = 102;
const STOP: u32 = 1012;
/// What fills a caption up to a fixed length.
const PAD: u32 = 0;

/// BERT's uncased tokenizer.
pub struct Words {
    tokenizer: Tokenizer,
    unknown: Option<u32>,
}

/// A caption as numbers; all lists have one entry per token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caption {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// The class that a token names; delimiters name none.
    pub class: Vec<Option<usize>>,
    /// Block number, from 0; a delimiter ends its block.
    pub block: Vec<usize>,
    /// The classes as the caption spells them.
    pub names: Vec<String>,
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
        for (token, id) in DELIMITERS {
            let found = tokenizer.token_to_id(token);
            ensure!(
                found == Some(id),
                "{}: the token {token} has {}, not the id {id}; Grounding DINO wants BERT's uncased WordPiece",
                path.display(),
                found.map_or("no id".to_string(), |found| format!("the id {found}"))
            );
        }
        let unknown = tokenizer.token_to_id("[UNK]");
        Ok(Self { tokenizer, unknown })
    }

    /// The caption of class names.
    ///
    /// # Errors
    /// No class, an empty one, one with a delimiter in it or without any known word, or more than [`MAX_TOKENS`] tokens in all.
    pub fn caption(&self, classes: &[String]) -> Result<Caption> {
        ensure!(!classes.is_empty(), "name at least one class, such as --classes 'person,red cup'");
        let mut caption = Caption::default();
        caption.push(CLS, None, 0);
        for (index, name) in classes.iter().enumerate() {
            let name = name.trim().to_lowercase();
            let ids = self.encode(&name)?;
            ensure!(
                !ids.is_empty() && !ids.iter().any(|id| DELIMITERS.iter().any(|(_, end)| end == id)),
                "class {name:?}: a name has letters and neither `.` nor `?`"
            );
            ensure!(
                ids.iter().any(|id| Some(*id) != self.unknown),
                "class {name:?}: the tokenizer knows no word of it; is it BERT's uncased one?"
            );
            for id in ids {
                caption.push(id, Some(index), index + 1);
            }
            caption.push(STOP, None, index + 1);
            caption.names.push(name);
        }
        caption.push(SEP, None, classes.len() + 1);
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

    /// The ids, filled up to `length`.
    pub fn padded_ids(&self, length: usize) -> Vec<i64> {
        let ids = self.ids.iter().chain(std::iter::repeat(&PAD));
        ids.take(length).map(|id| i64::from(*id)).collect()
    }

    /// Which of `length` tokens are caption rather than filling.
    pub fn real(&self, length: usize) -> impl Iterator<Item = bool> {
        let real = self.ids.len();
        (0..length).map(move |at| at < real)
    }

    /// The block of each of `length` tokens; what fills up is alone in its block.
    fn blocks(&self, length: usize) -> Vec<usize> {
        let next = self.block.last().map_or(0, |last| last + 1);
        self.block.iter().copied().chain(next..).take(length).collect()
    }

    /// Positions that start again in each block; `[CLS]`, `[SEP]` and what fills up are at 0.
    pub fn positions(&self, length: usize) -> Vec<i64> {
        let blocks = self.blocks(length);
        let place =
            |(at, block): (usize, &usize)| blocks.iter().take(at).filter(|b| *b == block).count() as i64;
        blocks.iter().enumerate().map(place).collect()
    }

    /// Row by row: a token attends to its own block. `[CLS]`, `[SEP]` and what fills up are blocks of their own.
    pub fn mask(&self, length: usize) -> Vec<bool> {
        let blocks = self.blocks(length);
        blocks.iter().flat_map(|a| blocks.iter().map(move |b| a == b)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small vocabulary with the ids that BERT gives the words of the reference's example.
    fn json() -> String {
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
        json.to_string()
    }

    pub fn words() -> Words {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json()).unwrap();
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
        let n = caption.ids.len();
        assert_eq!(serde_json::json!(caption.positions(n)), wanted["position_ids"]);
        let mask: Vec<Vec<u8>> =
            caption.mask(n).chunks(n).map(|row| row.iter().map(|b| u8::from(*b)).collect()).collect();
        assert_eq!(serde_json::json!(mask), wanted["mask"]);
        assert_eq!(caption.class[5], Some(1));
    }

    #[test]
    fn a_filled_up_caption_keeps_its_numbers_and_its_filling_stands_alone() {
        let caption = words().caption(&["cat".into()]).unwrap();
        assert_eq!(caption.padded_ids(6), [101, 4937, 1012, 102, 0, 0]);
        assert_eq!(caption.real(6).collect::<Vec<_>>(), [true, true, true, true, false, false]);
        assert_eq!(caption.positions(6), [0, 0, 1, 0, 0, 0]);
        let mask = caption.mask(6);
        for row in [0, 3, 4, 5] {
            let own: Vec<bool> = (0..6).map(|at| at == row).collect();
            assert_eq!(mask[row * 6..row * 6 + 6], own);
        }
    }

    #[test]
    fn a_tokenizer_with_other_ids_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json().replace("\".\":1012", "\".\":119")).unwrap();
        let message = Words::load(&path).err().unwrap().to_string();
        assert!(message.contains("the id 119, not the id 1012"), "{message}");
    }

    #[test]
    fn bad_classes_are_refused_with_words() {
        let words = words();
        for (classes, expected) in [
            (vec![], "at least one"),
            (vec!["a. cat".into()], "neither"),
            (vec!["a cat".into(), "cat?".into()], "neither"),
            (vec![" ".into()], "letters"),
            (vec!["\u{7}".into()], "letters"),
            (vec!["xylophone".into()], "no word"),
        ] {
            assert!(words.caption(&classes).unwrap_err().to_string().contains(expected));
        }
        let many: Vec<String> = (0..200).map(|_| "a cat".to_string()).collect();
        assert!(words.caption(&many).unwrap_err().to_string().contains("256"));
        assert_eq!(words.decode(&[6556, 2491, 3917]).unwrap(), "remote controller");
    }
}
