//! Conversations to examples: the whole of one as one sequence, with its targets in place.
//!
//! Comes in: a record and what was read of its media. Goes out: [`Example`]s without branches, masked as reference.md §2.4 says: the chat template's turns
//! (targets by the recipe's [`Masking`]), or the plain template's caption. Pictures are squashed, squared or cut into tiles (§2.1, §2.6). What is longer than
//! `max_tokens` is cut.

use super::corpus::{Media, PLACEHOLDER, Record};
use super::media::Shown;
use super::{Data, ImageMode, Template};
use crate::train::encode::{Encoder, Masking};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use utr_models::RgbFrame;
use utr_models::anyres;
use utr_models::network::{Example, Picture, Span};
use utr_models::prompt::{Message, Role};
use utr_models::vision::patch_rows;

impl Encoder {
    /// The example of a record.
    ///
    /// # Errors
    /// A picture that cannot be prepared, a template that is no ChatML, and a record of which nothing is left to learn within `max_tokens`.
    pub fn conversation(&self, record: &Record, shown: &Shown, data: &Data) -> Result<Example> {
        let mut trunk = match data.template {
            Template::Chat => self.chat(record)?,
            Template::Plain => self.plain(record)?,
        };
        if matches!(record.media, Media::Clip(_)) {
            let image = self.config.image_token;
            trunk.ids.iter_mut().filter(|id| **id == image).for_each(|id| *id = self.config.video_token);
        }
        let (pixels, pictures) = self.seen(shown, data.image)?;
        let patches = if pixels.is_empty() { None } else { Some(self.rows(&pixels)?) };
        let mut sizes: Vec<usize> = pictures.iter().map(|picture| picture.tokens(&self.config)).collect();
        if let Shown::Clip(frames) = shown {
            sizes.push(frames.len() * self.config.tokens_per_frame() + 1);
        }
        let most = data.max_tokens.unwrap_or(usize::MAX).min(self.config.text.max_positions);
        self.cut(&mut trunk, &sizes, most)?;
        Ok(Example { patches, pictures, trunk, branches: Vec::new(), window: None })
    }

    /// Ids and targets of a chat; each medium is its placeholder.
    fn chat(&self, record: &Record) -> Result<Span> {
        let said = record.turns.iter().flat_map(|turn| {
            [Message::text(Role::User, &turn.question), Message::text(Role::Assistant, &turn.answer)]
        });
        let messages: Vec<Message> = said.collect();
        let ids = self.template.encode_placed(&self.tokenizer, &messages, false, PLACEHOLDER)?;
        let mut header: Vec<u32> = self.marks.iter().copied().take(1).collect();
        header.extend(self.tokenizer.encode("assistant\n")?);
        let mut span = Span::context(ids);
        let (mut at, mut answers) = (0, 0);
        while at < span.ids.len() {
            if !span.ids[at..].starts_with(&header) {
                at += 1;
                continue;
            }
            let first = at + header.len();
            let length = span.ids[first..].iter().position(|id| *id == self.end_of_turn).map_or(0, |n| n + 1);
            let weight = (length.max(1) as f32).powf(-self.length_power);
            span.weights[first..first + length].fill(weight);
            if self.masking == Masking::Reference {
                // An assistant's turn is copied whole, with its header.
                span.weights[at..first].fill(1.0);
            }
            (at, answers) = (first + length, answers + 1);
        }
        ensure!(
            answers == record.turns.len(),
            "the chat template {} shows {answers} of {} answers as `<|im_start|>assistant` turns; training on data needs ChatML",
            self.template.path().display(),
            record.turns.len()
        );
        if self.masking == Masking::Reference {
            self.unmask(&mut span);
        }
        Ok(span)
    }

    /// A caption behind its picture or clip.
    fn plain(&self, record: &Record) -> Result<Span> {
        let mut span = Span::context(vec![self.config.image_token]);
        for turn in &record.turns {
            let caption = self.tokenizer.encode_plain(&format!("{}\n", turn.answer))?;
            let weight = (caption.len().max(1) as f32).powf(-self.length_power);
            span.push(&caption, weight);
        }
        Ok(span)
    }

    /// What the tower sees of the media, and how pictures are put together from it.
    fn seen(&self, shown: &Shown, mode: ImageMode) -> Result<(Vec<RgbFrame>, Vec<Picture>)> {
        let small = |picture: &RgbFrame| self.preprocessor.picture(picture);
        let anyres = mode == ImageMode::AnyresMax9;
        match shown {
            Shown::None => Ok((Vec::new(), Vec::new())),
            Shown::Clip(frames) => Ok((frames.iter().map(small).collect::<Result<_, _>>()?, Vec::new())),
            Shown::Pictures(pictures) => match &pictures[..] {
                [picture] if anyres => {
                    let side = self.config.vision.image_size;
                    ensure!(
                        (self.preprocessor.height, self.preprocessor.width) == (side, side),
                        "tiles need a preprocessing to the tower's {side}x{side} pixels, not {}x{}",
                        self.preprocessor.width,
                        self.preprocessor.height
                    );
                    let (height, width) = (picture.height, picture.width);
                    Ok((anyres::tiles(picture, side)?, vec![Picture::AnyRes { height, width }]))
                }
                [picture] => Ok((vec![small(picture)?], vec![Picture::Single { newline: false }])),
                many => {
                    let colour = self.preprocessor.mean.map(|mean| (mean * 255.0) as u8);
                    let square = |picture: &RgbFrame| small(&anyres::squared(picture, colour)?);
                    let seen = many.iter().map(square).collect::<Result<_, _>>()?;
                    Ok((seen, vec![Picture::Single { newline: anyres }; many.len()]))
                }
            },
        }
    }

    /// Pictures of the tower's size as rows of patches.
    fn rows(&self, pictures: &[RgbFrame]) -> Result<Tensor> {
        let (h, w) = (self.preprocessor.height, self.preprocessor.width);
        let mut pixels = Vec::with_capacity(pictures.len() * 3 * h * w);
        pictures.iter().for_each(|picture| pixels.extend(self.preprocessor.pixels(picture)));
        let vision = &self.config.vision;
        Ok(patch_rows(
            &Tensor::from_vec(pixels, (pictures.len(), 3, h, w), &Device::Cpu)?,
            vision.grid(),
            vision.patch,
        )?)
    }

    /// Cuts a sequence to `most` rows, where its media take `sizes` rows in their order.
    fn cut(&self, trunk: &mut Span, sizes: &[usize], most: usize) -> Result<()> {
        let (mut rows, mut media, mut kept, mut placed) = (0, sizes.iter(), 0, 0);
        for id in &trunk.ids {
            let placeholder = [self.config.image_token, self.config.video_token].contains(id);
            rows += if placeholder { media.next().copied().unwrap_or(1) } else { 1 };
            if rows > most {
                break;
            }
            kept += 1;
            placed += usize::from(placeholder);
        }
        ensure!(
            placed == sizes.len(),
            "its pictures or frames alone take {} rows, more than the {most} of the longest sequence",
            sizes.iter().sum::<usize>()
        );
        trunk.ids.truncate(kept);
        trunk.weights.truncate(kept);
        // The first row is predicted from nothing.
        let learnt = trunk.weights.iter().skip(1).any(|weight| *weight != 0.0);
        ensure!(learnt, "nothing to learn is left within {most} rows");
        Ok(())
    }
}
