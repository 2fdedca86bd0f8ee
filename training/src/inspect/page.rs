//! The page of one clip: facts, strip, timeline, tracks, conversations.
//!
//! Comes in: everything known of the clip. Goes out: HTML. On a wide screen what is seen stays beside the conversations; on a phone one follows the
//! other. Which page comes before and after is told from outside.

use super::audit::{About, Dialogue};
use super::html::{ONLY_WARNED, colour, counted, document, escape, number};
use super::strip::{self, Footage};
use super::talk;
use super::timeline::{self, Query, SCALE};
use crate::queries::{ClipTracks, Track};

/// Conversations with warnings that the head of a page links to.
const MOST_LINKS: usize = 20;

/// A clip with all that is said about it.
#[derive(Debug)]
pub struct Clip<'a> {
    /// Its path below the media root.
    pub name: &'a str,
    /// Its name as a file, without ending.
    pub file: &'a str,
    /// What was seen, or why nothing was.
    pub footage: Result<Footage, String>,
    /// Its tracks in its own numbering.
    pub whole: Option<&'a ClipTracks>,
    /// Its tracks in the conversations' numbering.
    pub sampled: Option<ClipTracks>,
    /// What is said about it.
    pub talks: Vec<Dialogue>,
    /// What does not fit, apart from the conversations.
    pub notes: Vec<String>,
    /// Frames that conversations count.
    pub frames: u32,
}

impl Clip<'_> {
    /// Conversations whose answers do not agree with the tracks.
    pub fn disagreements(&self) -> usize {
        self.talks.iter().filter(|talk| talk.disagrees()).count()
    }

    /// All other warnings.
    pub fn others(&self) -> usize {
        let about = |talk: &Dialogue| talk.findings.iter().filter(|f| f.about == About::Other).count();
        self.notes.len() + self.talks.iter().map(about).sum::<usize>()
    }

    /// Width, height, frames and rate, from the clip itself where it was read, else from its tracks.
    pub fn facts(&self) -> Facts {
        let tracks = self.whole.map(|t| (t.width as usize, t.height as usize, t.frames as usize, t.fps));
        match (&self.footage, tracks) {
            (Ok(f), tracks) => Facts {
                size: Some((f.width, f.height)),
                frames: Some(f.total),
                fps: f.fps.or(tracks.map(|t| t.3)),
            },
            (Err(_), Some((w, h, frames, fps))) => {
                Facts { size: Some((w, h)), frames: Some(frames), fps: Some(fps) }
            }
            (Err(_), None) => Facts::default(),
        }
    }
}

/// What a clip measures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// Pixels per row, and rows.
    pub size: Option<(usize, usize)>,
    /// Frames.
    pub frames: Option<usize>,
    /// Frames per second.
    pub fps: Option<f64>,
}

impl Facts {
    /// Seconds from the first frame to the end of the last.
    pub fn seconds(&self) -> Option<f64> {
        let fps = self.fps.filter(|fps| *fps > 0.0)?;
        Some(self.frames? as f64 / fps)
    }
}

/// Where a page leads: file names beside it with what they show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Links<'a> {
    /// File name of the index.
    pub index: &'a str,
    /// The clip before, by its file's name without ending.
    pub before: Option<&'a str>,
    /// The clip after.
    pub after: Option<&'a str>,
}

/// The page.
pub fn html(clip: &Clip, links: &Links) -> String {
    let footage = clip.footage.as_ref().ok();
    let mut look = String::new();
    if let Err(reason) = &clip.footage {
        look.push_str(&format!(
            "<div class=\"failed\"><strong>This clip could not be read.</strong> {}</div>\n",
            escape(reason)
        ));
    }
    let queried: Vec<(u32, usize)> =
        (1..).zip(&clip.talks).filter_map(|(n, talk)| Some((talk.frame?, n))).collect();
    if let Some(footage) = footage {
        look.push_str(&format!(
            "<section class=\"card\" aria-label=\"Frames\"><div class=\"head\"><h2>Frames</h2><span class=\"hint\">{} of {}, \
             named as in conversations; below, number in the clip and time</span>{}</div>\n{}</section>\n",
            footage.tiles.len(),
            footage.total,
            switches(clip.sampled.is_some()),
            strip::html(footage, clip.sampled.as_ref(), &queried)
        ));
    }
    if let (Some(sampled), Some(whole)) = (clip.sampled.as_ref(), clip.whole) {
        look.push_str(&over_time(clip, sampled));
        look.push_str(&table(whole, sampled));
    }
    let talks: String =
        (1..).zip(&clip.talks).map(|(n, talk)| talk::html(n, talk, clip.sampled.as_ref(), footage)).collect();
    let body = format!(
        "{}<main class=\"two\">\n<div class=\"look\">\n{look}</div>\n<section class=\"talks\" aria-label=\"Conversations\">\n\
         <div class=\"head\"><h2>Conversations</h2><span class=\"hint\">{}</span>{}</div>\n{talks}</section>\n</main>\n",
        header(clip, links),
        clip.talks.len(),
        if clip.talks.iter().any(|talk| !talk.findings.is_empty()) { ONLY_WARNED } else { "" }
    );
    document(clip.name, "../", &style(clip), &body)
}

fn header(clip: &Clip, links: &Links) -> String {
    let step = |to: Option<&str>, words: &str| match to {
        Some(file) => format!("<a href=\"{file}.html\">{words}</a>"),
        None => format!("<span>{words}</span>"),
    };
    let many = |n: usize, what: &str| format!("<b>{n}</b> {what}{}", if n == 1 { "" } else { "s" });
    let facts = clip.facts();
    let mut shown: Vec<String> = Vec::new();
    shown.extend(facts.size.map(|(w, h)| format!("<b>{w}×{h}</b> px")));
    shown.extend(facts.fps.map(|fps| format!("<b>{}</b> fps", number(fps, 2))));
    shown.extend(facts.frames.map(|frames| many(frames, "frame")));
    shown.extend(facts.seconds().map(|seconds| format!("<b>{}</b> s", number(seconds, 2))));
    shown.extend(clip.whole.map(|t| many(t.tracks.len(), "track")));
    shown.push(many(clip.talks.len(), "conversation"));
    let shown: String = shown.iter().map(|fact| format!("<li>{fact}</li>")).collect();
    let verdict = verdict(clip);
    let notes: String =
        clip.notes.iter().map(|note| format!("<p class=\"warning\">{}</p>\n", escape(note))).collect();
    format!(
        "<header class=\"top\">\n<nav><a href=\"../{}\">All clips</a><span class=\"steps\">{} {}</span></nav>\n<h1>{}</h1>\n\
         <ul class=\"facts\">{shown}{verdict}</ul>\n{notes}</header>\n",
        links.index,
        step(links.before, "← previous"),
        step(links.after, "next →"),
        escape(clip.name)
    )
}

/// What was found, with the conversations concerned.
fn verdict(clip: &Clip) -> String {
    let (wrong, others) = (clip.disagreements(), clip.others());
    if wrong + others == 0 {
        let checked = clip.footage.is_ok() && clip.whole.is_some();
        return if checked { "<li class=\"good\">boxes agree</li>".to_owned() } else { String::new() };
    }
    let about = |what: About| {
        let found = (1..).zip(&clip.talks).filter(|(_, talk)| talk.findings.iter().any(|f| f.about == what));
        let links: Vec<String> =
            found.take(MOST_LINKS).map(|(n, _): (usize, _)| format!("<a href=\"#q{n}\">{n}</a>")).collect();
        if links.is_empty() { String::new() } else { format!(": {}", links.join(" ")) }
    };
    let mut out = String::new();
    if wrong > 0 {
        let words = if wrong == 1 { "answer disagrees" } else { "answers disagree" };
        out.push_str(&format!(
            "<li class=\"bad\">{wrong} {words} with the tracks{}</li>",
            about(About::Answer)
        ));
    }
    if others > 0 {
        let words = counted(others, "other warning");
        out.push_str(&format!("<li class=\"doubt\">{words}{}</li>", about(About::Other)));
    }
    out
}

fn switches(boxes: bool) -> String {
    if !boxes {
        return String::new();
    }
    let switch = |id: &str, words: &str| {
        format!("<label><input type=\"checkbox\" id=\"{id}\" checked> {words}</label>")
    };
    format!("<span class=\"switches\">{} {}</span>", switch("boxes", "Boxes"), switch("ids", "Ids"))
}

/// The timeline with the tracks' names beside it.
fn over_time(clip: &Clip, sampled: &ClipTracks) -> String {
    let rows = timeline::rows(sampled);
    let query = |(number, talk): (usize, &Dialogue)| {
        let (frame, attribute) = (talk.frame?, talk.attribute.as_deref().unwrap_or(&talk.task));
        let title = format!("conversation {number} asks at frame{frame} ({attribute})");
        Some(Query { number, frame, track: talk.tracks.first().copied(), title })
    };
    let queries: Vec<Query> = (1..).zip(&clip.talks).filter_map(query).collect();
    let times = strip::times(clip.footage.as_ref().ok(), Some(sampled), clip.frames);
    let name = |(track, row): (&Track, &timeline::Row)| {
        format!(
            "<li class=\"trk t{0}\" style=\"height:{1}px\"><span class=\"chip t{0}\">{0}</span><span class=\"name\">{2}</span></li>\n",
            track.id,
            row.height(),
            escape(&track.name())
        )
    };
    let names: String = sampled.tracks.iter().zip(&rows).map(name).collect();
    format!(
        "<section class=\"card\" aria-label=\"Tracks over time\"><div class=\"head\"><h2>Tracks over time</h2><span class=\"hint\">bars: \
         boxes · blocks: actions · ◆: queried frame</span></div>\n<div class=\"rows\"><ol class=\"names\" \
         style=\"padding-top:{SCALE}px\">\n{names}</ol><div class=\"wide\">\n{}</div></div></section>\n",
        timeline::svg(sampled, &rows, &times, &queries)
    )
}

fn table(whole: &ClipTracks, sampled: &ClipTracks) -> String {
    let rows: String = whole.tracks.iter().map(|track| table_row(track, sampled)).collect();
    format!(
        "<section class=\"card\" aria-label=\"Tracks\"><div class=\"head\"><h2>Tracks</h2><span class=\"hint\">untick to hide a \
         track's boxes</span></div>\n<div class=\"scroll\"><table class=\"tracks\"><thead><tr><th>Id</th><th>Name</th>\
         <th>Frames of the clip</th><th>Sampled</th><th>Mean score</th><th>Actions, in sampled frames</th></tr></thead><tbody>\n{rows}\
         </tbody></table></div></section>\n"
    )
}

fn table_row(track: &Track, sampled: &ClipTracks) -> String {
    let id = track.id;
    let count = track.boxes.len();
    let span = match (track.boxes.first(), track.boxes.last()) {
        (Some(first), Some(last)) => {
            format!("{}–{} <span class=\"hint\">({count})</span>", first.frame, last.frame)
        }
        _ => "none".to_owned(),
    };
    let score = track.boxes.iter().map(|b| f64::from(b.score)).sum::<f64>() / count.max(1) as f64;
    let short = sampled.tracks.iter().find(|t| t.id == id);
    let deeds = short.iter().flat_map(|t| &t.actions).map(|action| {
        let span = match action.start == action.end {
            true => action.start.to_string(),
            false => format!("{}–{}", action.start, action.end),
        };
        format!("<li>{} <span class=\"hint\">{span}</span></li>", escape(&action.text))
    });
    let deeds: String = deeds.collect();
    let deeds = if deeds.is_empty() { "—".to_owned() } else { format!("<ul class=\"deeds\">{deeds}</ul>") };
    format!(
        "<tr class=\"trk t{id}\"><td><label class=\"pick\"><input type=\"checkbox\" id=\"show-{id}\" checked><span class=\"chip \
         t{id}\">{id}</span></label></td><td class=\"name\">{}</td><td class=\"figure\">{span}</td><td class=\"figure\">{} of {}</td><td class=\"figure\">{score:.2}</td><td>{deeds}</td></tr>\n",
        escape(&track.name()),
        short.map_or(0, |t| t.boxes.len()),
        sampled.frames,
    )
}

/// Colours of the tracks, and the rules by which their ticks hide their boxes.
fn style(clip: &Clip) -> String {
    let ids = clip.whole.iter().flat_map(|c| &c.tracks).map(|t| t.id).enumerate();
    ids.map(|(place, id)| {
        format!(
            ".t{id}{{--c:{}}}\nbody:has(#show-{id}:not(:checked)) .over .t{id}{{display:none}}\n",
            colour(place)
        )
    })
    .collect()
}
