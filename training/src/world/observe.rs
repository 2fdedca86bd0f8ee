//! What a viewer could write down about single frames of a clip: the rows the ceilings are fitted on.
//!
//! Comes in: a clip's state at a step and the question's words. Goes out: numbers per frame, and order-free statistics of
//! all frames. Only visible state is used (position, size, angle, colour, visibility); behaviours, events and the script's
//! own order of objects never are. Objects that look the same are listed from left to right, since no viewer of one
//! frame can tell which is which.

use super::{Colour, Item, Kind, ObjectState, STEPS, Script, Skill, state_at};

/// Objects described one by one; further ones only count in the totals.
const SLOTS: usize = 6;
/// Numbers per object and frame.
const PER_SLOT: usize = 12;
/// Numbers per frame: the slots, the first two slots relative to each other, totals, colours the question is about.
pub const PER_FRAME: usize = SLOTS * PER_SLOT + 3 + 3 + 3;
/// Values at these shares of the sorted 32 stand for the distribution of a number over the frames.
const QUANTILES: [usize; 7] = [0, 3, 8, 16, 23, 28, 31];
/// Statistics of one number over the frames: the quantiles, mean, spread, and number of frames near the largest.
const PER_NUMBER: usize = QUANTILES.len() + 3;
/// Products of two numbers of the first slots, averaged over frames: the joint statistics of a bag.
const JOINT: usize = 12;
/// Width of [`Observed::bag`].
pub const PER_BAG: usize = PER_FRAME * PER_NUMBER + JOINT * JOINT;

/// A clip as seen by the viewer of a question.
pub struct Observed {
    frames: Vec<[f32; PER_FRAME]>,
    /// The objects of the slots, as script indices, where they keep their slot through the clip.
    pub slots: Vec<usize>,
}

/// The script indices of the objects in slot order: those the question names, in its order; then the others by looks.
fn slot_order(script: &Script, item: &Item) -> Vec<usize> {
    let named_at = |&i: &usize| item.question.find(&script.name(i));
    let mut order: Vec<usize> = (0..script.objects.len()).collect();
    let looks = |i: usize| script.objects.get(i).map(|o| (o.category, o.colour, o.size, o.texture));
    order.sort_by_key(|i| (named_at(i).is_none(), named_at(i), looks(*i)));
    order
}

/// Whether some objects of the clip cannot be told apart.
fn has_identical(script: &Script) -> bool {
    script.objects.iter().any(|o| o.identical)
}

impl Observed {
    /// Looks at all 32 frames.
    pub fn new(script: &Script, item: &Item) -> Self {
        let slots = slot_order(script, item);
        let asked = asked_colours(item);
        let per_frame = |t: usize| {
            let states = state_at(script, t as f32);
            let mut order = slots.clone();
            if has_identical(script) {
                let x = |i: &usize| states.get(*i).map_or(0.0, |s| s.centre[0]);
                let same = |i: &usize| script.objects.get(*i).is_some_and(|o| o.identical);
                order.sort_by(|a, b| same(b).cmp(&same(a)).then(x(a).total_cmp(&x(b))));
            }
            let mut row = frame_row(&states, &order);
            let first = order.first().and_then(|&i| states.get(i)).filter(|s| is_seen(s));
            let matches =
                asked.map(|colour| f32::from(u8::from(colour.is_some() && first.map(|s| s.rgb) == colour)));
            row[PER_FRAME - 3..].copy_from_slice(&matches);
            row
        };
        Self { frames: (0..STEPS).map(per_frame).collect(), slots }
    }

    /// The numbers of the frames at `positions`, and for each pair of neighbouring positions their differences.
    pub fn at(&self, positions: &[usize], row: &mut Vec<f32>) {
        let frames: Vec<&[f32; PER_FRAME]> = positions.iter().filter_map(|&p| self.frames.get(p)).collect();
        frames.iter().for_each(|f| row.extend_from_slice(&f[..]));
        for pair in frames.windows(2) {
            if let [a, b] = pair {
                row.extend(a.iter().zip(b.iter()).map(|(a, b)| b - a));
            }
        }
    }

    /// Numbers that do not depend on the order of the frames.
    pub fn bag(&self, row: &mut Vec<f32>) {
        for number in 0..PER_FRAME {
            let mut values: Vec<f32> = self.frames.iter().map(|f| f[number]).collect();
            values.sort_by(f32::total_cmp);
            row.extend(QUANTILES.iter().map(|&q| values[q.min(values.len() - 1)]));
            let mean = values.iter().sum::<f32>() / STEPS as f32;
            let spread = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / STEPS as f32;
            let top = values.last().copied().unwrap_or_default();
            let bottom = values.first().copied().unwrap_or_default();
            let near = values.iter().filter(|v| top - **v < 0.25 * (top - bottom)).count();
            row.extend([mean, spread.sqrt(), near as f32]);
        }
        for a in 0..JOINT {
            for b in 0..JOINT {
                // The first slot with itself above the diagonal, with the second slot elsewhere.
                let other = if b > a { b } else { PER_SLOT + b };
                let mut products: Vec<f32> = self.frames.iter().map(|f| f[a] * f[other]).collect();
                // Sorted before the sum, or else the rounding would tell the order.
                products.sort_by(f32::total_cmp);
                row.push(products.iter().sum::<f32>() / STEPS as f32);
            }
        }
    }
}

fn is_seen(state: &ObjectState) -> bool {
    state.present && state.visibility > 0.05
}

/// The item's answer and its twin's, in lower case without letters, in an order that does not tell which is which: by
/// their first mention in the question, then by their letters.
pub fn two_answers(item: &Item) -> [String; 2] {
    let question = item.question.to_lowercase();
    let twin = item.twin_answer.as_deref().unwrap_or_default();
    let mut two = [item.answer.as_str(), twin].map(|a| item.bare(a).to_lowercase());
    two.sort_by_key(|a| (question.find(a.as_str()).unwrap_or(usize::MAX), a.clone()));
    two
}

/// For questions on an order of colours: the colours of the two answers, and the first other colour that is named.
fn asked_colours(item: &Item) -> [Option<[u8; 3]>; 3] {
    if item.skill != Skill::AttributeChange {
        return [None; 3];
    }
    let mut two = two_answers(item).map(|a| Colour::ALL.iter().copied().find(|c| a == c.word()));
    let mut named: Vec<(usize, Colour)> =
        Colour::ALL.iter().filter_map(|c| item.question.find(c.word()).map(|at| (at, *c))).collect();
    named.sort();
    let mut named = named.into_iter().map(|(_, c)| c).filter(|c| !two.contains(&Some(*c)));
    let asked = named.next();
    if item.kind == Kind::YesNo {
        // "blue right after green?": both colours are in the question.
        two = [asked, named.next()];
        return [two[0], two[1], None].map(|c| c.map(Colour::rgb));
    }
    [two[0], two[1], asked].map(|c| c.map(Colour::rgb))
}

/// Columns of `count` neighbouring positions in [`Observed::at`].
pub fn width_at(count: usize) -> usize {
    PER_FRAME * (count + count.saturating_sub(1))
}

fn frame_row(states: &[ObjectState], order: &[usize]) -> [f32; PER_FRAME] {
    let mut row = [0.0; PER_FRAME];
    let seen = |i: usize| states.get(i).filter(|s| is_seen(s));
    for (slot, &index) in order.iter().take(SLOTS).enumerate() {
        if let Some(state) = seen(index) {
            row[slot * PER_SLOT..(slot + 1) * PER_SLOT].copy_from_slice(&slot_row(state));
        }
    }
    let relative = SLOTS * PER_SLOT;
    if let (Some(a), Some(b)) = (order.first().and_then(|&i| seen(i)), order.get(1).and_then(|&i| seen(i))) {
        let [dx, dy] = [b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]];
        row[relative..relative + 3].copy_from_slice(&[dx, dy, (dx * dx + dy * dy).sqrt()]);
    }
    let all: Vec<&ObjectState> = (0..states.len()).filter_map(seen).collect();
    row[relative + 3] = all.len() as f32;
    row[relative + 4] = all.iter().filter(|s| s.flash).count() as f32;
    row[relative + 5] = all.iter().map(|s| s.half).sum();
    row
}

fn slot_row(state: &ObjectState) -> [f32; PER_SLOT] {
    let turn = state.angle * std::f32::consts::PI / 180.0;
    let [r, g, b] = state.rgb.map(|v| f32::from(v) / 255.0);
    let [x, y] = state.centre;
    [
        1.0,
        x,
        y,
        state.half,
        libm::sinf(turn),
        libm::cosf(turn),
        r,
        g,
        b,
        f32::from(u8::from(state.flash)),
        state.visibility,
        state.half * state.visibility,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Split, WorldConfig, clip_seed, pair};

    #[test]
    fn the_bag_of_a_reversed_clip_is_the_same_to_the_last_bit() {
        for skill in Skill::ALL.iter().filter(|s| s.is_order()) {
            for index in 0..4 {
                let [a, b] = pair(*skill, clip_seed(Split::Train, index), &WorldConfig::full());
                let bag = |script: &Script| {
                    let mut row = Vec::new();
                    Observed::new(script, &a.item).bag(&mut row);
                    row
                };
                assert_eq!(bag(&a.script), bag(&b.script), "{skill:?}");
                assert_eq!(two_answers(&a.item), two_answers(&b.item));
            }
        }
    }

    #[test]
    fn rows_have_the_promised_width() {
        let [a, _] = pair(Skill::EventOrder, clip_seed(Split::Train, 0), &WorldConfig::full());
        let observed = Observed::new(&a.script, &a.item);
        let (mut frames, mut bag) = (Vec::new(), Vec::new());
        observed.at(&[3, 9, 30], &mut frames);
        observed.bag(&mut bag);
        assert_eq!((frames.len(), bag.len()), (width_at(3), PER_BAG));
    }
}
