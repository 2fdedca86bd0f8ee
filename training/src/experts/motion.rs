//! The motion expert: what differs from the resting scene, without any weights.
//!
//! Comes in: a clip of a camera that stands still. Goes out: the things that move or change, in every frame that shows them, with a colour, a size and a word for how they
//! move. A first pass learns the scene of each shot, a second one compares and follows. What never moves nor changes is part of the scene; what rests and moves later, or the
//! other way round, is found throughout. A moving camera makes everything move, and such frames are left empty.

mod colour;
mod follow;
mod mask;
mod picture;
mod report;
mod rest;
mod scene;
mod template;

use anyhow::Result;

use super::Expert;
use super::clip::{Clip, Footage, Shape};
use crate::tracks::detections::Object;
use follow::{Follower, Still};
use picture::Picture;
use report::{Scale, report};
use scene::{Sampler, Scene};

/// How the expert looks.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct MotionParams {
    /// Longer side of the pictures it works on, in pixels
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=2048))]
    pub motion_side: u32,
    /// Least difference from the scene, in grey levels of the channel that differs most
    #[arg(long, default_value_t = 24)]
    pub motion_threshold: u8,
    /// Least area of a thing, as a share of the frame
    #[arg(long, default_value_t = 0.0012)]
    pub motion_min_area: f32,
}

impl Default for MotionParams {
    fn default() -> Self {
        Self { motion_side: 256, motion_threshold: 24, motion_min_area: 0.0012 }
    }
}

/// More than this share of the frame in motion is the camera's doing.
const MOST_MOVING: f32 = 0.6;
/// Frames that are followed together, at most; what moves is known across the seam, what comes to rest behind it is not.
const STRETCH: usize = 512;
/// Seconds that a thing out of sight is waited for.
const PATIENCE: f32 = 1.0;

/// The expert.
#[derive(Clone, Debug)]
pub struct Motion {
    params: MotionParams,
}

impl Motion {
    /// An expert that looks as `params` say.
    pub fn new(params: MotionParams) -> Self {
        Self { params }
    }
}

impl Expert for Motion {
    fn settings(&self) -> String {
        format!("motion {:?}", self.params)
    }

    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape> {
        let survey = self.survey(clip)?;
        let mut scenes = survey.scenes.into_iter();
        let rate = survey.shape.fps as f32;
        let mut stretch = Stretch::new(scenes.next(), self.params, rate);
        let mut take = |picture: Picture, block: usize, cut: bool| {
            if cut {
                stretch.hand_out(found);
                stretch = Stretch::new(scenes.next(), self.params, rate);
            }
            stretch.add(picture, block);
            if stretch.stills.len() == STRETCH {
                stretch.hand_out(found);
            }
        };
        if let Some(kept) = survey.kept {
            for (place, picture) in kept.into_iter().enumerate() {
                take(picture, survey.block, survey.shape.cuts.contains(&(place as u32 + 1)));
            }
        } else {
            let mut footage = clip.open()?;
            while let Some(frame) = footage.next_frame()? {
                let cut = footage.begins_shot();
                take(Picture::of(&frame, survey.block), survey.block, cut);
            }
        }
        stretch.hand_out(found);
        Ok(survey.shape)
    }
}

/// What the first pass learns.
struct Survey {
    shape: Shape,
    /// One for each shot.
    scenes: Vec<Scene>,
    /// Side of the blocks that pixels are averaged over.
    block: usize,
    /// All pictures of a clip that is short.
    kept: Option<Vec<Picture>>,
}

impl Motion {
    fn survey(&self, clip: &Clip) -> Result<Survey> {
        let threshold = self.params.motion_threshold;
        let (mut scenes, mut sampler, mut block) = (Vec::new(), Sampler::default(), 1);
        let mut kept = Some(Vec::new());
        let mut footage: Footage = clip.open()?;
        while let Some(frame) = footage.next_frame()? {
            if footage.begins_shot() {
                scenes.push(Scene::learn(&std::mem::take(&mut sampler).pictures(), threshold));
            }
            block = Picture::block(&frame, self.params.motion_side);
            kept = kept.filter(|k| k.len() < STRETCH);
            if let Some(kept) = &mut kept {
                let picture = Picture::of(&frame, block);
                sampler.offer(|| picture.clone());
                kept.push(picture);
            } else {
                sampler.offer(|| Picture::of(&frame, block));
            }
        }
        scenes.push(Scene::learn(&sampler.pictures(), threshold));
        Ok(Survey { shape: footage.shape()?, scenes, block, kept })
    }
}

/// Frames of a shot that are followed together.
struct Stretch {
    scene: Option<Scene>,
    stills: Vec<Still>,
    follower: Follower,
    block: usize,
    least_share: f32,
    rate: f32,
}

impl Stretch {
    fn new(scene: Option<Scene>, params: MotionParams, rate: f32) -> Self {
        let patience = (PATIENCE * rate).round() as u32;
        let follower = Follower::new(patience);
        Self { scene, stills: Vec::new(), follower, block: 1, least_share: params.motion_min_area, rate }
    }

    fn add(&mut self, picture: Picture, block: usize) {
        self.block = block;
        self.follower.least = (self.least_share * picture.pixels() as f32).max(4.0) as usize;
        let Some(scene) = &self.scene else { return };
        let mask = scene.foreground(&picture);
        let moving = mask.iter().map(|m| usize::from(*m)).sum::<usize>();
        // Fragments count towards a thing that is in pieces.
        let least = self.follower.least.div_ceil(3);
        let mut parts =
            if moving as f32 > MOST_MOVING * mask.len() as f32 { Vec::new() } else { mask::parts(&mask, picture.width) };
        parts.retain(|p| p.area() >= least);
        self.stills.push(Still { picture, parts });
    }

    fn hand_out(&mut self, found: &mut dyn FnMut(Vec<Object>)) {
        let Some(first) = self.stills.first() else { return };
        let size = [first.picture.width as f32, first.picture.height as f32];
        let seen = self.follower.follow(&self.stills);
        self.stills.clear();
        report(seen, Scale { block: self.block as f32, size, rate: self.rate }).into_iter().for_each(found);
    }
}
