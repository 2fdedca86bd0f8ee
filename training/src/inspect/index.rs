//! The index: totals of the data set, and a table of its clips.
//!
//! Comes in: a [`Summary`] of each clip, in order. Goes out: HTML. Numbers are counted over the clips shown, which may be a choice of all.

use std::collections::BTreeMap;

use super::audit::Dialogue;
use super::html::{ONLY_WARNED, counted, document, escape, number, percent};
use super::page::{Clip, Facts};
use super::strip::{self, shares};
use crate::queries::Attribute;

/// Borders between the bars of answer lengths, in letters.
const LENGTHS: [usize; 9] = [0, 10, 20, 50, 100, 200, 500, 1000, 2000];

/// What the index says of a clip.
#[derive(Clone, Debug)]
pub struct Summary {
    name: String,
    file: String,
    facts: Facts,
    failed: Option<String>,
    tracks: Option<usize>,
    by_task: BTreeMap<String, usize>,
    by_attribute: BTreeMap<String, usize>,
    frames_asked: Vec<u32>,
    answer_lengths: Vec<usize>,
    trajectories: usize,
    disagreements: usize,
    others: usize,
    thumbnail: String,
}

impl Summary {
    /// What is kept of a clip.
    pub fn new(clip: &Clip) -> Self {
        let counts = |of: &dyn Fn(&Dialogue) -> Option<String>| {
            let mut counts = BTreeMap::new();
            clip.talks.iter().filter_map(of).for_each(|key| *counts.entry(key).or_default() += 1);
            counts
        };
        let answers = clip.talks.iter().flat_map(|talk| &talk.turns);
        Self {
            name: clip.name.to_owned(),
            file: clip.file.to_owned(),
            facts: clip.facts(),
            failed: clip.footage.as_ref().err().cloned(),
            tracks: clip.whole.map(|t| t.tracks.len()),
            by_task: counts(&|talk| Some(talk.task.clone())),
            by_attribute: counts(&|talk| talk.attribute.clone()),
            frames_asked: clip.talks.iter().filter_map(|talk| talk.frame).collect(),
            answer_lengths: answers.map(|turn| turn.answer.chars().count()).collect(),
            trajectories: clip.talks.iter().filter(|talk| talk.trajectories > 0 || talk.disagrees()).count(),
            disagreements: clip.disagreements(),
            others: clip.others(),
            thumbnail: thumbnail(clip),
        }
    }

    /// Whether the clip could be read.
    pub fn failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Conversations about it.
    pub fn conversations(&self) -> usize {
        self.by_task.values().sum()
    }

    /// Conversations whose answers do not agree with the tracks.
    pub fn disagreements(&self) -> usize {
        self.disagreements
    }
}

/// The middle frame with its boxes.
fn thumbnail(clip: &Clip) -> String {
    let Ok(footage) = &clip.footage else { return "<div class=\"shot none\">?</div>".to_owned() };
    let Some(tile) = footage.tiles.get(footage.tiles.len() / 2) else { return String::new() };
    let boxes = clip.sampled.iter().flat_map(|c| {
        c.tracks.iter().enumerate().filter_map(|(place, t)| {
            let area = shares(t.at(tile.numbers.0)?.xyxy, c);
            Some(format!(
                "<g style=\"--c:{}\">{}</g>",
                super::html::colour(place),
                strip::track_box(t.id, area)
            ))
        })
    });
    let boxes: String = boxes.collect();
    format!(
        "<div class=\"shot\"><img src=\"clips/{}\" alt=\"\" loading=\"lazy\"><svg class=\"over\" aria-hidden=\"true\">{boxes}</svg></div>",
        escape(&tile.file)
    )
}

/// The data set as a whole.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// What the page is called.
    pub title: String,
    /// Frames that conversations count.
    pub frames: u32,
    /// How far boxes may be off, in thousandths.
    pub tolerance: u16,
    /// What is worth knowing, in words.
    pub notes: Vec<String>,
}

/// The page.
pub fn html(whole: &Whole, clips: &[Summary]) -> String {
    let sum = |of: fn(&Summary) -> usize| clips.iter().map(of).sum::<usize>();
    let (wrong, trajectories, others) =
        (sum(|c| c.disagreements), sum(|c| c.trajectories), sum(|c| c.others));
    let failed = sum(|c| usize::from(c.failed()));
    let total = |value: String, words: &str, class: &str| {
        format!("<li class=\"{class}\"><b>{value}</b><span>{words}</span></li>\n")
    };
    let bad = |n: usize| if n > 0 { "bad" } else { "good" };
    let mut totals = String::new();
    totals.push_str(&total(clips.len().to_string(), "clips", ""));
    totals.push_str(&total(sum(Summary::conversations).to_string(), "conversations", ""));
    totals.push_str(&total(sum(|c| c.tracks.unwrap_or(0)).to_string(), "tracks", ""));
    totals.push_str(&total(
        format!("{wrong}<small> of {trajectories}</small>"),
        "answers with trajectories disagree with the tracks",
        bad(wrong),
    ));
    totals.push_str(&total(others.to_string(), "other warnings", if others > 0 { "doubt" } else { "good" }));
    totals.push_str(&total(failed.to_string(), "clips could not be read", bad(failed)));
    let notes: String =
        whole.notes.iter().map(|note| format!("<p class=\"note\">{}</p>\n", escape(note))).collect();
    let rows: String = clips.iter().map(row).collect();
    let body = format!(
        "<header class=\"top\">\n<nav><span>Data set audit</span></nav>\n<h1>{}</h1>\n<ul class=\"totals\">\n{totals}</ul>\n{notes}\
         </header>\n<main>\n<div class=\"charts\">\n{}</div>\n<section class=\"card\" aria-label=\"Clips\"><div class=\"head\">\
         <h2>Clips</h2><span class=\"hint\">a text's box may be {} thousandths of a side off</span>{ONLY_WARNED}</div>\n<table class=\"clips\"><thead><tr><th></th>\
         <th>Clip</th><th>Size</th><th>Rate</th><th>Frames</th><th>Tracks</th><th>Conversations</th><th>Warnings</th></tr></thead>\
         <tbody>\n{rows}</tbody></table></section>\n</main>\n",
        escape(&whole.title),
        charts(whole, clips),
        whole.tolerance
    );
    document(&whole.title, "", "", &body)
}

fn row(clip: &Summary) -> String {
    let dash = || "—".to_owned();
    let facts = &clip.facts;
    let tasks: String = clip
        .by_task
        .iter()
        .map(|(task, n)| format!("<span class=\"badge task\">{} <b>{n}</b></span>", escape(task)))
        .collect();
    let mut warnings = String::new();
    if let Some(reason) = &clip.failed {
        warnings.push_str(&format!("<span class=\"badge bad\" title=\"{}\">not read</span>", escape(reason)));
    }
    if clip.disagreements > 0 {
        let n = clip.disagreements;
        let words = if n == 1 { "answer disagrees" } else { "answers disagree" };
        warnings.push_str(&format!("<span class=\"badge bad\">{n} {words}</span>"));
    }
    if clip.others > 0 {
        warnings.push_str(&format!(
            "<span class=\"badge doubt\">{}</span>",
            counted(clip.others, "other warning")
        ));
    }
    let warned = if warnings.is_empty() { "" } else { " class=\"warned\"" };
    let cell = |name: &str, text: String| format!("<td data-name=\"{name}\">{text}</td>");
    format!(
        "<tr{warned}><td class=\"thumb\"><a href=\"clips/{0}.html\" tabindex=\"-1\" aria-hidden=\"true\">{1}</a></td><td \
         class=\"title\"><a href=\"clips/{0}.html\">{2}</a></td>{3}{4}{5}{6}{7}{8}</tr>\n",
        clip.file,
        clip.thumbnail,
        escape(&clip.name),
        cell("Size", facts.size.map_or_else(dash, |(w, h)| format!("{w}×{h}"))),
        cell("Rate", facts.fps.map_or_else(dash, |fps| format!("{} fps", number(fps, 2)))),
        cell("Frames", facts.frames.map_or_else(dash, |n| n.to_string())),
        cell("Tracks", clip.tracks.map_or_else(dash, |n| n.to_string())),
        cell("Conversations", tasks),
        cell("Warnings", if warnings.is_empty() { dash() } else { warnings })
    )
}

fn charts(whole: &Whole, clips: &[Summary]) -> String {
    let tally = |of: fn(&Summary) -> &BTreeMap<String, usize>| {
        let mut all: BTreeMap<String, usize> = BTreeMap::new();
        clips.iter().flat_map(of).for_each(|(key, n)| *all.entry(key.clone()).or_default() += n);
        all
    };
    let tasks = tally(|c| &c.by_task);
    let mut attributes = tally(|c| &c.by_attribute);
    if tasks.contains_key("utr") {
        // One that is never asked is worth seeing.
        for attribute in Attribute::ALL {
            attributes.entry(attribute.word().to_owned()).or_default();
        }
    }
    let mut asked: Vec<usize> = vec![0; whole.frames as usize];
    for frame in clips.iter().flat_map(|c| &c.frames_asked) {
        if let Some(n) = (*frame as usize).checked_sub(1).and_then(|place| asked.get_mut(place)) {
            *n += 1;
        }
    }
    let asked: Vec<(String, usize)> =
        (1..).zip(asked).map(|(n, count): (u32, _)| (format!("frame{n}"), count)).collect();
    let mut lengths: Vec<usize> = vec![0; LENGTHS.len()];
    for length in clips.iter().flat_map(|c| &c.answer_lengths) {
        let bin = LENGTHS.iter().rposition(|from| from <= length).unwrap_or(0);
        if let Some(n) = lengths.get_mut(bin) {
            *n += 1;
        }
    }
    let border = |bin: usize| match LENGTHS.get(bin + 1) {
        Some(to) => format!("{} to {} letters", LENGTHS[bin], to - 1),
        None => format!("{} letters and more", LENGTHS[bin]),
    };
    let lengths: Vec<(String, usize)> =
        lengths.into_iter().enumerate().map(|(bin, n)| (border(bin), n)).collect();
    let ends =
        |bars: &[(String, usize)]| (bars.first().map(|b| b.0.clone()), bars.last().map(|b| b.0.clone()));
    let (first, last) = ends(&asked);
    [
        bars("Conversations by task", &tasks),
        bars("Queries by attribute", &attributes),
        histogram("Queried frame", &asked, &[first.unwrap_or_default(), last.unwrap_or_default()]),
        histogram(
            "Length of answers",
            &lengths,
            &["0".into(), "50".into(), "500".into(), "2000+ letters".into()],
        ),
    ]
    .concat()
}

/// Names with counts and bars, the largest first.
fn bars(title: &str, counts: &BTreeMap<String, usize>) -> String {
    let most = counts.values().copied().max().unwrap_or(0).max(1);
    let mut list: Vec<(&String, &usize)> = counts.iter().collect();
    list.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let bar = |(name, n): (&String, &usize)| {
        format!(
            "<li><span>{}</span><i style=\"--n:{}\"></i><b>{n}</b></li>\n",
            escape(name),
            percent(*n as f64 / most as f64)
        )
    };
    let list: String = list.into_iter().map(bar).collect();
    let list = if list.is_empty() { "<li class=\"hint\">none</li>".to_owned() } else { list };
    format!("<section class=\"card\"><h2>{title}</h2><ul class=\"bars\">\n{list}</ul></section>\n")
}

fn histogram(title: &str, bars: &[(String, usize)], under: &[String]) -> String {
    let most = bars.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let wide = 1.0 / bars.len().max(1) as f64;
    let drawn: String = bars
        .iter()
        .enumerate()
        .map(|(place, (name, n))| {
            let high = *n as f64 / most.max(1) as f64;
            format!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{name}: {n}</title></rect>\n",
                percent((place as f64 + 0.08) * wide),
                percent(1.0 - high),
                percent(0.84 * wide),
                percent(high)
            )
        })
        .collect();
    let under: String = under.iter().map(|text| format!("<span>{text}</span>")).collect();
    format!(
        "<section class=\"card\"><div class=\"head\"><h2>{title}</h2><span class=\"hint\">highest bar {most}</span></div><svg class=\"histogram\" role=\"img\" \
         aria-label=\"{title}\" width=\"100%\" height=\"124\">\n{drawn}</svg><div class=\"under\">{under}</div></section>\n"
    )
}
