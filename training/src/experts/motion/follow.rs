//! Things through time: which connected part of which frame shows what.
//!
//! Comes in: the pictures of a stretch of frames and their connected parts. Goes out: per frame the things that are seen, with boxes that last: parts
//! that move as one are one thing, and a part that several things share is divided by their looks. The frames are gone through forwards and then
//! backwards, so that things that begin together and part later are two from the start. Identities end with the stretch; giving lasting ones is the
//! tracker's business.

use super::boxes::{Xyxy, area, inside, moved, narrow, union, way};
use super::mask::Part;
use super::picture::Picture;
use super::template::Template;
use crate::queries::scene::iou;

/// One frame at working size.
#[derive(Clone, Debug)]
pub struct Still {
    /// What it shows.
    pub picture: Picture,
    /// What stands before the scene.
    pub parts: Vec<Part>,
}

/// A thing in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// Which thing.
    pub thing: u32,
    /// Where.
    pub xyxy: Xyxy,
    /// Share of it that is seen.
    pub seen: f32,
    /// The word for most of it.
    pub colour: &'static str,
}

/// What is followed.
#[derive(Clone, Debug)]
struct Thing {
    id: u32,
    xyxy: Xyxy,
    /// Pixels a frame.
    velocity: [f32; 2],
    look: Template,
    /// Pixels, when last seen alone.
    area: f32,
    /// Share that is seen in this frame.
    seen: f32,
    /// Frames since it was seen.
    lost: u32,
    /// Frames in which it was seen.
    age: u32,
    /// Of a thing in two pieces: the way from the one to the other when they first parted.
    parted: Option<[f32; 2]>,
}

/// Follows things through stretches of a shot.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    things: Vec<Thing>,
    next: u32,
    /// Frames that a thing out of sight is waited for.
    patience: u32,
    /// Pixels of the smallest thing.
    pub least: usize,
}

/// Least share of a part (or of a thing, if that is smaller) that lies in the thing's box, of what may be it.
const LEAST_LINK: f32 = 0.3;
/// Share of a look below which a thing is hidden.
const HIDDEN: f32 = 0.2;
/// Least way of one piece against the other, in shares of the smaller one, of what is two things.
const APART: f32 = 0.2;
/// Factor of the box's area above which pieces are no longer one thing.
const SPREAD: f32 = 1.6;
/// Least share of a part that one thing must cover to take it, and most that any other one may cover.
const TAKEN: [f32; 2] = [0.6, 0.25];
/// A part of which no thing covers this share is something new.
const NEW: f32 = 0.2;
/// Share of the surprise that the velocity takes in.
const GAIN: f32 = 0.4;
/// What is left of the velocity after a frame out of sight.
const SLOWS: f32 = 0.9;

impl Follower {
    /// Waits for `patience` frames.
    pub fn new(patience: u32) -> Self {
        Self { patience, ..Self::default() }
    }

    /// The things of every frame of a stretch; what is known at its end is used in the next one.
    pub fn follow(&mut self, stills: &[Still]) -> Vec<Vec<Sighting>> {
        for still in stills {
            self.step(still);
        }
        let known = self.things.clone();
        for thing in &mut self.things {
            thing.velocity = thing.velocity.map(|v| -v);
            (thing.lost, thing.parted) = (0, None);
        }
        let mut seen: Vec<Vec<Sighting>> = stills.iter().rev().map(|still| self.step(still)).collect();
        seen.reverse();
        self.things = known;
        seen
    }

    /// One frame on.
    fn step(&mut self, still: &Still) -> Vec<Sighting> {
        let size = [still.picture.width as f32, still.picture.height as f32];
        for thing in &mut self.things {
            if thing.lost > 0 {
                thing.velocity = thing.velocity.map(|v| v * SLOWS);
            }
            thing.xyxy = moved(thing.xyxy, thing.velocity);
        }
        let patience = self.patience;
        self.things.retain(|t| t.lost <= patience && area(inside(t.xyxy, size)) > 0.0);
        let blobs: Vec<Blob> = still.parts.iter().map(Blob::of).collect();
        let before = std::mem::take(&mut self.things);
        for (things, parts) in groups(before, &blobs) {
            let parts: Vec<&Blob> = parts.into_iter().map(|i| &blobs[i]).collect();
            match <[Thing; 1]>::try_from(things) {
                Ok([thing]) => self.alone(still, thing, parts),
                Err(things) if things.is_empty() => self.begin(still, parts),
                Err(things) => self.together(still, things, &parts),
            }
        }
        self.things.sort_by_key(|t| t.id);
        let sighting =
            |t: &Thing| Sighting { thing: t.id, xyxy: t.xyxy, seen: t.seen, colour: t.look.colour() };
        self.things.iter().filter(|t| t.seen > 0.0).map(sighting).collect()
    }

    /// New things, where the parts are large enough.
    fn begin<'a>(&mut self, still: &Still, parts: impl IntoIterator<Item = &'a Blob<'a>>) {
        for blob in parts.into_iter().filter(|b| b.area >= self.least as f32) {
            self.next += 1;
            self.things.push(Thing {
                id: self.next,
                xyxy: blob.xyxy,
                velocity: [0.0; 2],
                look: look(still, &[blob], blob.xyxy),
                area: blob.area,
                seen: 1.0,
                lost: 0,
                age: 1,
                parted: None,
            });
        }
    }

    /// A thing that shares its parts with no other: they are its pieces, until they go their own ways.
    fn alone(&mut self, still: &Still, mut thing: Thing, mut parts: Vec<&Blob>) {
        parts.sort_by(|a, b| b.area.total_cmp(&a.area));
        match parts.get(1).filter(|b| b.area >= self.least as f32) {
            None => thing.parted = None,
            Some(second) => {
                let now = way(parts[0].xyxy, second.xyxy);
                let first = *thing.parted.get_or_insert(now);
                let strayed = (now[0] - first[0]).hypot(now[1] - first[1]);
                let whole = parts.iter().fold(thing.xyxy, |u, b| union(u, b.xyxy));
                if strayed > (APART * narrow(second.xyxy)).max(3.0) || area(whole) > SPREAD * area(thing.xyxy)
                {
                    let like = |i: &usize| iou(parts[*i].xyxy, thing.xyxy);
                    let own = (0..parts.len()).max_by(|a, b| like(a).total_cmp(&like(b))).unwrap_or(0);
                    let kept = parts.swap_remove(own);
                    self.begin(still, parts);
                    (parts, thing.parted) = (vec![kept], None);
                }
            }
        }
        thing.take(still, &parts);
        self.things.push(thing);
    }

    /// Several things that share parts: each is looked for by its look, and takes a part that no other one claims.
    fn together(&mut self, still: &Still, things: Vec<Thing>, parts: &[&Blob]) {
        let places = places(still, &things, parts);
        let mut taken: Vec<Vec<&Blob>> = vec![Vec::new(); things.len()];
        for blob in parts {
            let claim = |place: &(Xyxy, f32)| {
                if place.1 < HIDDEN { 0.0 } else { within(blob.part, place.0) / blob.area }
            };
            let claims: Vec<f32> = places.iter().map(claim).collect();
            let most = (0..claims.len()).max_by(|a, b| claims[*a].total_cmp(&claims[*b])).unwrap_or(0);
            let other = (0..claims.len()).filter(|i| *i != most).map(|i| claims[i]).fold(0.0, f32::max);
            if claims[most] >= TAKEN[0] && other <= TAKEN[1] {
                taken[most].push(blob);
            } else if claims[most] < NEW {
                self.begin(still, [*blob]);
            }
        }
        for ((mut thing, (place, seen)), own) in things.into_iter().zip(places).zip(taken) {
            if own.iter().map(|b| b.area).sum::<f32>() >= 0.5 * thing.area {
                thing.take(still, &own);
            } else if seen >= HIDDEN {
                let surprise = way(thing.xyxy, place);
                thing.velocity = [0, 1].map(|i| thing.velocity[i] + GAIN * seen * surprise[i]);
                (thing.xyxy, thing.seen, thing.lost, thing.age) = (place, seen, 0, thing.age + 1);
            } else {
                thing.hide();
            }
            self.things.push(thing);
        }
    }
}

impl Thing {
    /// The thing as these parts, which are its own, show it.
    fn take(&mut self, still: &Still, parts: &[&Blob]) {
        let Some(first) = parts.first() else { return self.hide() };
        let xyxy = parts.iter().fold(first.xyxy, |u, b| union(u, b.xyxy));
        let surprise = way(self.xyxy, xyxy);
        let gain = if self.age < 2 { 1.0 } else { GAIN };
        self.velocity = [0, 1].map(|i| self.velocity[i] + gain * surprise[i]);
        self.look = look(still, parts, xyxy);
        self.area = parts.iter().map(|b| b.area).sum();
        (self.xyxy, self.seen, self.lost, self.age) = (xyxy, 1.0, 0, self.age + 1);
    }

    fn hide(&mut self) {
        (self.seen, self.lost) = (0.0, self.lost + 1);
    }
}

/// A connected part with its measures.
struct Blob<'a> {
    part: &'a Part,
    xyxy: Xyxy,
    area: f32,
}

impl<'a> Blob<'a> {
    fn of(part: &'a Part) -> Self {
        Self { part, xyxy: part.bounds().map(|v| v as f32), area: part.area() as f32 }
    }
}

/// Things, and places of parts that may show them; every thing and every part is in one group.
fn groups(things: Vec<Thing>, blobs: &[Blob]) -> Vec<(Vec<Thing>, Vec<usize>)> {
    let mut groups: Vec<(Vec<Thing>, Vec<usize>)> =
        things.into_iter().map(|t| (vec![t], Vec::new())).collect();
    let linked = |t: &Thing, b: &Blob, room: f32| {
        let [x1, y1, x2, y2] = t.xyxy;
        let share = within(b.part, [x1 - room, y1 - room, x2 + room, y2 + room]);
        share > 0.0 && share >= LEAST_LINK * b.area.min(t.area)
    };
    // What was missed or jumped may be a little farther off.
    let far = |t: &Thing| narrow(t.xyxy) * if t.lost > 0 { 0.5 } else { 0.25 };
    for (place, blob) in blobs.iter().enumerate() {
        let near = |g: &(Vec<Thing>, Vec<usize>)| g.0.iter().any(|t| linked(t, blob, 1.0));
        let wide = |g: &(Vec<Thing>, Vec<usize>)| g.0.iter().any(|t| linked(t, blob, far(t)));
        let any = groups.iter().any(near);
        let mut merged = (Vec::new(), vec![place]);
        groups.retain_mut(|group| {
            let meets = if any { near(group) } else { wide(group) };
            if meets {
                merged.0.append(&mut group.0);
                merged.1.append(&mut group.1);
            }
            !meets
        });
        groups.push(merged);
    }
    groups
}

fn look(still: &Still, parts: &[&Blob], xyxy: Xyxy) -> Template {
    let parts: Vec<&Part> = parts.iter().map(|b| b.part).collect();
    Template::learn(&still.picture, &parts, [xyxy[0] as i32, xyxy[1] as i32])
}

/// Where the looks of things are found among parts that they share, and how much of each. What fits best is given its pixels first: a thing that lies
/// behind another one, or that is the other one, is left with little.
fn places(still: &Still, things: &[Thing], parts: &[&Blob]) -> Vec<(Xyxy, f32)> {
    let mut open = vec![false; still.picture.pixels()];
    for blob in parts {
        blob.part.pixels(still.picture.width).for_each(|p| open[p] = true);
    }
    let found: Vec<([i32; 2], f32)> = things.iter().map(|t| find(still, t, &open)).collect();
    let mut places: Vec<(Xyxy, f32)> = things.iter().map(|t| (t.xyxy, 0.0)).collect();
    let mut order: Vec<usize> = (0..things.len()).filter(|i| found[*i].1 >= HIDDEN).collect();
    order.sort_by(|a, b| found[*b].1.total_cmp(&found[*a].1).then(things[*a].id.cmp(&things[*b].id)));
    for index in order {
        let (thing, [x, y]) = (&things[index], found[index].0);
        let seen = thing.look.claim(&still.picture, &mut open, [x, y]);
        if seen >= HIDDEN {
            places[index] = (moved(thing.xyxy, [x as f32 - thing.xyxy[0], y as f32 - thing.xyxy[1]]), seen);
        }
    }
    places
}

/// The corner where a thing's look is found among open pixels, and how much of it.
fn find(still: &Still, thing: &Thing, open: &[bool]) -> ([i32; 2], f32) {
    let [x1, y1, _, _] = thing.xyxy;
    let speed = thing.velocity[0].hypot(thing.velocity[1]);
    let reach = (3.0 + 0.5 * speed + 2.0 * thing.lost as f32).min(10.0) as i32;
    thing.look.find(&still.picture, |p| open[p], [x1.round() as i32, y1.round() as i32], reach)
}

/// Pixels of a part inside a box.
fn within(part: &Part, [x1, y1, x2, y2]: Xyxy) -> f32 {
    let rows = part.runs.iter().filter(|r| (r.y as f32) + 0.5 > y1 && (r.y as f32) + 0.5 < y2);
    rows.map(|r| ((r.to as f32).min(x2) - (r.from as f32).max(x1)).max(0.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::motion::mask;

    const RED: [u8; 3] = [210, 50, 40];
    const BLUE: [u8; 3] = [40, 60, 220];

    type Drawn = ([usize; 4], [u8; 3]);

    fn still(drawn: &[Drawn]) -> Still {
        let picture =
            drawn.iter().fold(Picture::plain(120, 60, 30), |p, (xyxy, colour)| p.with(*xyxy, *colour));
        let mask: Vec<u8> = (0..picture.pixels()).map(|p| u8::from(picture.at(p) != [30; 3])).collect();
        Still { parts: mask::parts(&mask, picture.width), picture }
    }

    fn follow(stills: &[Still]) -> Vec<Vec<Sighting>> {
        Follower { least: 8, ..Follower::new(10) }.follow(stills)
    }

    /// Follows, and checks that each thing is where it is drawn, under one number.
    fn check(frames: &[Vec<Drawn>]) {
        let stills: Vec<Still> = frames.iter().map(|f| still(f)).collect();
        let mut numbers = vec![None; frames[0].len()];
        for (place, (drawn, seen)) in frames.iter().zip(follow(&stills)).enumerate() {
            assert_eq!(drawn.len(), seen.len(), "frame {place}: {seen:?}");
            for ((xyxy, _), number) in drawn.iter().zip(&mut numbers) {
                let xyxy = xyxy.map(|v| v as f32);
                let like = |s: &&Sighting| iou(s.xyxy, xyxy) > 0.75;
                let found =
                    seen.iter().find(like).unwrap_or_else(|| panic!("frame {place}: {xyxy:?}: {seen:?}"));
                assert_eq!(*number.get_or_insert(found.thing), found.thing, "frame {place}");
            }
        }
    }

    #[test]
    fn things_that_touch_in_passing_stay_two() {
        let frame = |i: usize| {
            vec![([4 + 3 * i, 10, 24 + 3 * i, 30], RED), ([90 - 3 * i, 24, 110 - 3 * i, 44], BLUE)]
        };
        check(&(0..28).map(frame).collect::<Vec<_>>());
    }

    #[test]
    fn things_that_begin_together_and_part_are_two_from_the_start() {
        let frame = |i: usize| {
            vec![
                ([20, 10, 40, 30], RED),
                ([40 + 4 * i.saturating_sub(8), 10, 60 + 4 * i.saturating_sub(8), 30], BLUE),
            ]
        };
        check(&(0..20).map(frame).collect::<Vec<_>>());
    }

    #[test]
    fn pieces_that_move_as_one_are_one_thing() {
        let frames: Vec<Still> = (0..20)
            .map(|i| {
                still(&[([10 + 3 * i, 10, 24 + 3 * i, 22], RED), ([10 + 3 * i, 26, 24 + 3 * i, 44], BLUE)])
            })
            .collect();
        let whole: Vec<Still> = (0..5).map(|i| still(&[([10 + 3 * i, 10, 24 + 3 * i, 44], RED)])).collect();
        let stills = [whole, frames[5..].to_vec()].concat();
        for (i, seen) in follow(&stills).iter().enumerate() {
            assert_eq!(seen.len(), 1, "frame {i}: {seen:?}");
            assert_eq!(seen[0].xyxy, [10.0 + 3.0 * i as f32, 10.0, 24.0 + 3.0 * i as f32, 44.0]);
        }
    }

    #[test]
    fn a_hidden_thing_is_not_seen_and_known_again() {
        let frame = |i: usize| if (8..14).contains(&i) { vec![] } else { vec![([30, 10, 50, 30], RED)] };
        let stills: Vec<Still> = (0..20).map(|i| still(&frame(i))).collect();
        let seen = follow(&stills);
        assert_eq!(seen.iter().filter(|s| s.is_empty()).count(), 6);
        assert_eq!(seen[0][0].thing, seen[19][0].thing);
    }
}
