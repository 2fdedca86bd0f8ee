//! Things through time: which connected part of which frame shows what.
//!
//! Comes in: the pictures of a stretch of frames and their connected parts. Goes out: per frame the things that are seen, with boxes that last: parts that move as one are one
//! thing, and a part that several things share is divided by their looks. The frames are gone through forwards and then backwards, so that things that begin together and
//! part later are two from the start. Identities end with the stretch; giving lasting ones is the tracker's business.

use super::mask::Part;
use super::picture::Picture;
use super::template::Template;

/// A box in pixels of the picture: left, top, right, bottom.
pub type Xyxy = [f32; 4];

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
    velocity: [f32; 2],
    look: Template,
    /// Pixels, when last seen alone.
    area: f32,
    /// Frames since it was seen.
    lost: u32,
    /// Frames in which it was seen.
    age: u32,
    /// Of a thing in two pieces: the way from the one to the other when they first parted.
    parted: Option<[f32; 2]>,
    /// Frames in which it lay on top of an older thing.
    doubled: u32,
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
/// Least way of one piece against the other, in shares of the smaller, of what is two things.
const APART: f32 = 0.2;
/// Two boxes that overlap more are one thing.
const DOUBLED: f32 = 0.75;

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
            thing.lost = 0;
            thing.parted = None;
        }
        let mut seen: Vec<Vec<Sighting>> = stills.iter().rev().map(|still| self.step(still)).collect();
        seen.reverse();
        self.things = known;
        seen
    }

    /// One frame on.
    fn step(&mut self, still: &Still) -> Vec<Sighting> {
        let (width, height) = (still.picture.width as f32, still.picture.height as f32);
        for thing in &mut self.things {
            if thing.lost > 0 {
                thing.velocity = thing.velocity.map(|v| v * 0.9);
            }
            thing.xyxy = moved(thing.xyxy, thing.velocity);
        }
        let gone = |t: &Thing| t.lost > self.patience || inside(t.xyxy, [width, height]) <= 0.0;
        self.things.retain(|t| !gone(t));
        let blobs: Vec<Blob> = still.parts.iter().map(Blob::of).collect();
        let mut before: Vec<Thing> = std::mem::take(&mut self.things);
        let mut now: Vec<(Thing, f32)> = Vec::new();
        for (things, parts) in groups(&before, &blobs) {
            let members: Vec<Thing> = things.iter().map(|&i| before[i].clone()).collect();
            let parts: Vec<&Blob> = parts.iter().map(|&i| &blobs[i]).collect();
            match members.len() {
                0 => now.extend(parts.iter().filter_map(|b| self.begin(still, b)).map(|t| (t, 1.0))),
                1 => self.alone(still, &members[0], &parts, &mut now),
                _ => self.together(still, members, &parts, &mut now),
            }
        }
        before.clear();
        self.settle(now)
    }

    fn begin(&mut self, still: &Still, blob: &Blob) -> Option<Thing> {
        (blob.area as usize >= self.least).then(|| {
            self.next += 1;
            Thing {
                id: self.next,
                xyxy: blob.xyxy,
                velocity: [0.0; 2],
                look: look(still, &[blob], blob.xyxy),
                area: blob.area,
                lost: 0,
                age: 1,
                parted: None,
                doubled: 0,
            }
        })
    }

    /// A thing that shares its parts with no other.
    fn alone(&mut self, still: &Still, thing: &Thing, parts: &[&Blob], now: &mut Vec<(Thing, f32)>) {
        let mut thing = thing.clone();
        if parts.is_empty() {
            thing.lost += 1;
            now.push((thing, 0.0));
            return;
        }
        let mut parts: Vec<&Blob> = parts.to_vec();
        parts.sort_by(|a, b| b.area.total_cmp(&a.area));
        let second = parts.get(1).filter(|b| b.area as usize >= self.least).copied();
        if let Some(second) = second {
            let way = [0, 1].map(|i| centre(second.xyxy)[i] - centre(parts[0].xyxy)[i]);
            let first = *thing.parted.get_or_insert(way);
            let side = sides(second.xyxy).into_iter().fold(f32::MAX, f32::min);
            let strayed = (way[0] - first[0]).hypot(way[1] - first[1]) > (APART * side).max(3.0);
            let union = parts.iter().fold(thing.xyxy, |u, b| union(u, b.xyxy));
            if strayed || size(union) > 1.6 * size(thing.xyxy) {
                // Each goes its own way: the thing stays with the part that is most like it.
                let overlap = |b: &&Blob| overlap(b.xyxy, thing.xyxy);
                let own = parts.iter().copied().max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
                let others: Vec<&Blob> = parts.iter().copied().filter(|b| Some(b.xyxy) != own.map(|o| o.xyxy)).collect();
                now.extend(others.into_iter().filter_map(|b| self.begin(still, b)).map(|t| (t, 1.0)));
                parts = own.into_iter().collect();
                thing.parted = None;
            }
        } else {
            thing.parted = None;
        }
        take(&mut thing, still, &parts);
        now.push((thing, 1.0));
    }

    /// Several things that share parts: each is looked for by its look, and takes a part that no other one claims.
    fn together(&mut self, still: &Still, things: Vec<Thing>, parts: &[&Blob], now: &mut Vec<(Thing, f32)>) {
        let places = places(still, &things, parts);
        let claim = |blob: &Blob, place: &(Xyxy, f32)| {
            if place.1 < HIDDEN { 0.0 } else { within(blob.part, place.0) / blob.area }
        };
        let mut taken: Vec<Vec<&Blob>> = vec![Vec::new(); things.len()];
        for blob in parts {
            let claims: Vec<f32> = places.iter().map(|p| claim(blob, p)).collect();
            let most = (0..claims.len()).max_by(|a, b| claims[*a].total_cmp(&claims[*b])).unwrap_or(0);
            let rest = (0..claims.len()).filter(|i| *i != most).map(|i| claims[i]).fold(0.0, f32::max);
            if claims[most] >= 0.6 && rest <= 0.25 {
                taken[most].push(blob);
            } else if claims[most] < 0.2 {
                now.extend(self.begin(still, blob).map(|t| (t, 1.0)));
            }
        }
        for ((mut thing, place), own) in things.into_iter().zip(places).zip(taken) {
            let whole: f32 = own.iter().map(|b| b.area).sum();
            if whole >= 0.5 * thing.area {
                take(&mut thing, still, &own);
                now.push((thing, 1.0));
            } else if place.1 >= HIDDEN {
                let [a, b] = [centre(place.0), centre(thing.xyxy)];
                let weight = 0.3 * place.1;
                thing.velocity = [0, 1].map(|i| thing.velocity[i] + weight * (a[i] - b[i]));
                thing.xyxy = place.0;
                thing.lost = 0;
                thing.age += 1;
                now.push((thing, place.1));
            } else {
                thing.lost += 1;
                now.push((thing, 0.0));
            }
        }
    }

    /// Keeps the frame's things but for doubles, and says which of them are seen.
    fn settle(&mut self, mut now: Vec<(Thing, f32)>) -> Vec<Sighting> {
        now.sort_by_key(|t| t.0.id);
        for index in 0..now.len() {
            let (xyxy, age, colour) = (now[index].0.xyxy, now[index].0.age, now[index].0.look.colour());
            let on_top = now.iter().enumerate().any(|(other, t)| {
                let older = other != index && (t.0.age, index) > (age, other);
                older && overlap(t.0.xyxy, xyxy) > DOUBLED && t.0.look.colour() == colour
            });
            now[index].0.doubled = if on_top { now[index].0.doubled + 1 } else { 0 };
        }
        now.retain(|t| t.0.doubled < 4);
        let seen = now.iter().filter(|t| t.1 >= HIDDEN).map(|(t, seen)| Sighting {
            thing: t.id,
            xyxy: t.xyxy,
            seen: *seen,
            colour: t.look.colour(),
        });
        let seen = seen.collect();
        self.things = now.into_iter().map(|t| t.0).collect();
        seen
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

/// Things and parts that are linked, as places in their lists; every thing and every part is in one group.
fn groups(things: &[Thing], blobs: &[Blob]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut groups: Vec<(Vec<usize>, Vec<usize>)> = (0..things.len()).map(|i| (vec![i], Vec::new())).collect();
    let linked = |t: &Thing, b: &Blob, room: f32| {
        let [x1, y1, x2, y2] = t.xyxy;
        let share = within(b.part, [x1 - room, y1 - room, x2 + room, y2 + room]);
        share >= LEAST_LINK * b.area.min(t.area) && share > 0.0
    };
    for (place, blob) in blobs.iter().enumerate() {
        let mut own: Vec<usize> = (0..things.len()).filter(|&i| linked(&things[i], blob, 1.0)).collect();
        if own.is_empty() {
            // What was missed or jumped may be a little farther off.
            let room = |t: &Thing| sides(t.xyxy).into_iter().fold(f32::MAX, f32::min) * if t.lost > 0 { 0.5 } else { 0.25 };
            own = (0..things.len()).filter(|&i| linked(&things[i], blob, room(&things[i]))).collect();
        }
        let mut merged = (Vec::new(), vec![place]);
        groups.retain_mut(|group| {
            let meets = group.0.iter().any(|t| own.contains(t));
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

/// The thing as these parts, alone, show it.
fn take(thing: &mut Thing, still: &Still, parts: &[&Blob]) {
    let Some(first) = parts.first() else { return };
    let xyxy = parts.iter().fold(first.xyxy, |u, b| union(u, b.xyxy));
    let expected = moved(thing.xyxy, thing.velocity.map(|v| -v));
    let [a, b] = [centre(xyxy), centre(expected)];
    let step = [a[0] - b[0], a[1] - b[1]];
    let gain = if thing.age < 2 { 1.0 } else { 0.4 };
    thing.velocity = [0, 1].map(|i| thing.velocity[i] + gain * (step[i] - thing.velocity[i]));
    thing.look = look(still, parts, xyxy);
    thing.area = parts.iter().map(|b| b.area).sum();
    (thing.xyxy, thing.lost, thing.age) = (xyxy, 0, thing.age + 1);
}

fn look(still: &Still, parts: &[&Blob], xyxy: Xyxy) -> Template {
    let parts: Vec<&Part> = parts.iter().map(|b| b.part).collect();
    Template::learn(&still.picture, &parts, [xyxy[0] as i32, xyxy[1] as i32])
}

/// Where the looks of things are found among parts that they share, and how much of each. What fits best is given its pixels first: a thing that lies behind another one, or
/// that is the other one, is left with little.
fn places(still: &Still, things: &[Thing], parts: &[&Blob]) -> Vec<(Xyxy, f32)> {
    let mut open = vec![false; still.picture.pixels()];
    for blob in parts {
        blob.part.pixels(still.picture.width).for_each(|p| open[p] = true);
    }
    let found: Vec<([i32; 2], f32)> = things.iter().map(|t| find(still, t, &open)).collect();
    let mut places: Vec<(Xyxy, f32)> = things.iter().map(|t| (t.xyxy, 0.0)).collect();
    let mut order: Vec<usize> = (0..things.len()).collect();
    order.sort_by(|a, b| found[*b].1.total_cmp(&found[*a].1).then(things[*a].id.cmp(&things[*b].id)));
    for index in order {
        let (thing, corner) = (&things[index], found[index].0);
        if found[index].1 >= HIDDEN {
            let seen = thing.look.claim(&still.picture, &mut open, corner);
            let shift = [corner[0] as f32 - thing.xyxy[0], corner[1] as f32 - thing.xyxy[1]];
            places[index] = (if seen >= HIDDEN { moved(thing.xyxy, shift) } else { thing.xyxy }, seen);
        }
    }
    places
}

/// The corner where a thing's look is found among open pixels, and how much of it.
fn find(still: &Still, thing: &Thing, open: &[bool]) -> ([i32; 2], f32) {
    let [x1, y1, _, _] = thing.xyxy;
    let corner = [x1.round() as i32, y1.round() as i32];
    let speed = thing.velocity[0].hypot(thing.velocity[1]);
    let reach = (3.0 + 0.5 * speed + 2.0 * thing.lost as f32).min(10.0) as i32;
    thing.look.find(&still.picture, |p| open[p], corner, reach)
}

/// Pixels of a part inside a box.
fn within(part: &Part, [x1, y1, x2, y2]: Xyxy) -> f32 {
    let rows = part.runs.iter().filter(|r| (r.y as f32) + 0.5 > y1 && (r.y as f32) + 0.5 < y2);
    rows.map(|r| ((r.to as f32).min(x2) - (r.from as f32).max(x1)).max(0.0)).sum()
}

fn moved([x1, y1, x2, y2]: Xyxy, [x, y]: [f32; 2]) -> Xyxy {
    [x1 + x, y1 + y, x2 + x, y2 + y]
}

fn centre([x1, y1, x2, y2]: Xyxy) -> [f32; 2] {
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0]
}

fn sides([x1, y1, x2, y2]: Xyxy) -> [f32; 2] {
    [x2 - x1, y2 - y1]
}

fn size(xyxy: Xyxy) -> f32 {
    let [w, h] = sides(xyxy);
    w * h
}

fn union(a: Xyxy, b: Xyxy) -> Xyxy {
    [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]
}

fn overlap(a: Xyxy, b: Xyxy) -> f32 {
    crate::queries::scene::iou(a, b)
}

/// Area of a box that lies inside the picture.
fn inside(b: Xyxy, [width, height]: [f32; 2]) -> f32 {
    let cut = [b[0].max(0.0), b[1].max(0.0), b[2].min(width), b[3].min(height)];
    (cut[2] - cut[0]).max(0.0) * (cut[3] - cut[1]).max(0.0)
}
