//! Audit pages as a user meets them: a world folder in, pages out, with whatever a data set may hold.
//!
//! In: the binary that cargo built, a small world. Out: a failure that shows the page. How the pages look is judged by eye.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use utr_training::files::{read_jsonl, write_jsonl};

const UTR_TRAIN: &str = env!("CARGO_BIN_EXE_utr-train");

/// A small world of pictures: three clips.
fn world(root: &Path) -> PathBuf {
    let folder = root.join("world");
    let made = Command::new(UTR_TRAIN)
        .args(["world", "--clips", "3", "--size", "96", "--encode", "frames", "--output"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

fn inspect(world: &Path, output: &Path, more: &[&str]) -> Output {
    Command::new(UTR_TRAIN)
        .arg("inspect")
        .arg("--data")
        .arg(world.join("data.jsonl"))
        .arg("--tracks")
        .arg(world.join("tracks.jsonl"))
        .arg("--media-root")
        .arg(world)
        .arg("--output")
        .arg(output)
        .args(more)
        .output()
        .unwrap()
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

fn pages(folder: &Path) -> BTreeMap<PathBuf, String> {
    let html = |path: &Path| path.extension().is_some_and(|ending| ending == "html");
    let read = |(path, bytes): (PathBuf, Vec<u8>)| (path, String::from_utf8(bytes).unwrap());
    files(folder).into_iter().filter(|(path, _)| html(path)).map(read).collect()
}

/// The tags of a page: name, attributes, and whether it closes or stands alone. Attributes are all quoted.
fn tags(page: &str) -> Vec<(String, BTreeMap<String, String>, char)> {
    let mut found = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, next) = after.split_once('>').expect("a tag that does not end");
        assert!(!tag.contains('<'), "a tag within a tag: {tag}");
        rest = next;
        if let Some(name) = tag.strip_prefix('/') {
            found.push((name.to_owned(), BTreeMap::new(), '/'));
            continue;
        }
        let (tag, alone) = tag.strip_suffix('/').map_or((tag, ' '), |tag| (tag, '.'));
        let (name, mut list) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = BTreeMap::new();
        while let Some((key, value)) = list.split_once("=\"") {
            let (value, more) = value.split_once('"').expect("an attribute that does not end");
            attributes.insert(key.trim().rsplit(' ').next().unwrap().to_owned(), value.to_owned());
            list = more;
        }
        found.push((name.to_owned(), attributes, alone));
    }
    found
}

/// Tags nest, ids are unique, what is linked exists beside the page, nothing comes from elsewhere.
fn check(path: &Path, page: &str) {
    const ALONE: [&str; 4] = ["meta", "link", "img", "input"];
    let tags = tags(page);
    let ids: Vec<&String> = tags.iter().filter_map(|(_, attributes, _)| attributes.get("id")).collect();
    let mut open = Vec::new();
    for (name, attributes, kind) in &tags {
        match kind {
            '/' => assert_eq!(open.pop(), Some(name.as_str()), "{}", path.display()),
            ' ' if !ALONE.contains(&name.as_str()) => open.push(name),
            _ => {}
        }
        assert!(!attributes.keys().any(|key| key.starts_with("on")), "{name} {attributes:?}");
        for link in ["href", "src"].iter().filter_map(|key| attributes.get(*key)) {
            if let Some(id) = link.strip_prefix('#') {
                assert!(ids.iter().any(|known| *known == id), "{}: no place {link}", path.display());
            } else {
                assert!(path.parent().unwrap().join(link).is_file(), "{}: no file {link}", path.display());
            }
        }
    }
    assert!(open.is_empty(), "{}: not closed: {open:?}", path.display());
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "{}", path.display());
    for outside in ["http:", "https:", "url(", "@import", "<iframe"] {
        assert!(!page.contains(outside), "{}: {outside}", path.display());
    }
}

#[test]
fn a_world_has_pages_with_all_tracks_and_queried_frames_and_no_warnings() {
    let root = tempfile::tempdir().unwrap();
    let (world, output) = (world(root.path()), root.path().join("pages"));
    let said = done(inspect(&world, &output, &[]));
    assert_eq!(said.trim(), output.join("index.html").to_str().unwrap());
    let first = files(&output);
    let pages = pages(&output);
    assert_eq!(pages.len(), 4);
    pages.iter().for_each(|(path, page)| check(path, page));
    let index = &pages[&output.join("index.html")];
    assert!(index.contains("<b>3</b><span>clips</span>") && !index.contains("badge bad"), "{index}");

    let tracks: Vec<Value> = read_jsonl(&world.join("tracks.jsonl")).unwrap();
    let data: Vec<Value> = read_jsonl(&world.join("data.jsonl")).unwrap();
    let mut queries = 0;
    for clip in &tracks {
        let name = clip["video"].as_str().unwrap();
        let page = &pages[&output.join("clips").join(name.replace('/', "-") + ".html")];
        assert!(page.contains("boxes agree") && !page.contains("class=\"warning\""), "{page}");
        for track in clip["tracks"].as_array().unwrap() {
            let chip = format!("<span class=\"chip t{0}\">{0}</span>", track["id"]);
            assert!(page.matches(&chip).count() >= 2, "{name}: {chip}");
            assert!(page.contains(&format!("<g class=\"trk t{}\"><title>", track["id"])));
        }
        let own = data.iter().filter(|record| record["video"] == clip["video"]);
        for (n, record) in (1..).zip(own) {
            let Some(frame) = record["meta"]["query_frame"].as_u64() else { continue };
            queries += 1;
            assert!(page.contains(&format!("href=\"#f{frame}\">asks at frame{frame}</a>")), "{name} {n}");
            assert!(
                page.contains(&format!("<g class=\"ask q{n} f{frame} t{}\"", record["meta"]["track_ids"][0]))
            );
            let tile =
                page.split("<figure class=\"tile").find(|t| t.contains(&format!("id=\"f{frame}\""))).unwrap();
            assert!(
                tile.starts_with(" queried") && tile.contains(&format!("<a href=\"#q{n}\">{n}</a>")),
                "{tile}"
            );
        }
        assert_eq!(
            page.matches("<article class=\"talk\"").count(),
            data.iter().filter(|r| r["video"] == name).count()
        );
        assert_eq!(page.matches("<figure class=\"tile").count(), 32);
    }
    assert!(queries >= 6, "{queries}");
    done(inspect(&world, &output, &[]));
    assert!(files(&output) == first, "a second run wrote other bytes");
}

#[test]
fn what_is_wrong_or_hostile_is_shown_and_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (world, output) = (world(root.path()), root.path().join("pages"));
    let mut data: Vec<Value> = read_jsonl(&world.join("data.jsonl")).unwrap();
    let mut tracks: Vec<Value> = read_jsonl(&world.join("tracks.jsonl")).unwrap();
    // One answer about the first clip moves by a frame; the tracks of the last clip are lost.
    let utr = data.iter_mut().find(|record| record["meta"]["task"] == "utr").unwrap();
    let answer = utr["conversations"][1]["value"].as_str().unwrap().replace("frame1:", "frame2:");
    let changed = answer != utr["conversations"][1]["value"].as_str().unwrap();
    utr["conversations"][1]["value"] = answer.into();
    assert!(changed, "the query's object is not there in frame1; choose another seed");
    tracks.pop();
    let hostile = "x\"'><script>alert(1)</script>.mp4";
    let evil = "</p></article><img src=x onerror=alert(2)> frame3:";
    std::fs::create_dir_all(world.join(hostile).parent().unwrap()).unwrap();
    std::fs::write(world.join(hostile), [7u8; 500]).unwrap();
    std::fs::write(
        root.path().join("secret.png"),
        std::fs::read(world.join("clips/train-000000/00000.png")).unwrap(),
    )
    .unwrap();
    let say = |video: &str, meta: Value| {
        json!({"id": evil, "video": video, "meta": meta, "conversations": [
            {"from": "human", "value": evil}, {"from": "gpt", "value": evil}]})
    };
    data.push(say(
        hostile,
        json!({"task": evil, "query_attribute": evil, "query_frame": 3, "track_ids": [1], "k\"<": evil}),
    ));
    data.push(say("../secret.png", Value::Null));
    data.push(say("clips/gone.mp4", json!([1, "odd"])));
    data.push(json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}));
    let mut odd = tracks[0].clone();
    odd["video"] = hostile.into();
    odd["tracks"][0]["category"] = evil.into();
    odd["tracks"][0]["actions"] = json!([{"start": 1, "end": 4, "text": evil}]);
    tracks.push(odd);
    write_jsonl(&world.join("data.jsonl"), &data).unwrap();
    write_jsonl(&world.join("tracks.jsonl"), &tracks).unwrap();

    let said = inspect(&world, &output, &[]);
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        told.contains("6 clips, 3 not read") && told.contains("1 with an answer that disagrees"),
        "{told}"
    );
    done(said);
    let pages = pages(&output);
    assert_eq!(pages.len(), 7);
    pages.iter().for_each(|(path, page)| check(path, page));
    let page = |name: &str| {
        let clips = output.join("clips");
        let found = pages.iter().find(|(path, _)| {
            path.starts_with(&clips) && path.file_name().unwrap().to_string_lossy().starts_with(name)
        });
        found.unwrap_or_else(|| panic!("no page {name}: {:?}", pages.keys())).1
    };
    assert!(page("clips-train-000000").contains("the answer&#39;s trajectory does not agree with track"));
    assert!(page("clips-train-000002").contains("the tracks file does not have this clip"));
    assert!(page("clips-gone.mp4").contains("there is no such file"));
    assert!(
        page("secret.png-").contains("leads out of --media-root") && !page("secret.png-").contains("<img")
    );
    let hostile = page("x___");
    assert!(hostile.contains("could not be read") && hostile.contains("&lt;script&gt;alert(1)"), "{hostile}");
    let index = &pages[&output.join("index.html")];
    assert!(
        index.contains("<b>1<small> of") && index.contains("1 record without video or image left out."),
        "{index}"
    );
    assert_eq!(index.matches("badge bad\" title").count(), 3);
    // Pages and pictures lie in the output and nowhere else.
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 3);
    assert!(files(&output).keys().all(|path| !path.to_string_lossy().contains("secret.png/")));
}

#[test]
fn a_choice_of_clips_and_shares_of_the_work_give_the_same_pages() {
    let root = tempfile::tempdir().unwrap();
    let world = world(root.path());
    let (whole, shared) = (root.path().join("whole"), root.path().join("shared"));
    done(inspect(&world, &whole, &["--limit", "2", "--frames", "8"]));
    let names: Vec<String> = pages(&whole.join("clips"))
        .keys()
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["clips-train-000000.html", "clips-train-000002.html"]);
    let page = std::fs::read_to_string(whole.join("clips/clips-train-000000.html")).unwrap();
    assert_eq!(page.matches("<figure class=\"tile").count(), 8);
    let all = root.path().join("all");
    done(inspect(&world, &all, &[]));
    for share in ["0/2", "1/2"] {
        let said = done(inspect(&world, &shared, &["--shard", share]));
        let index = shared.join(format!("index-{}-of-2.html", &share[..1]));
        assert_eq!(said.trim(), index.to_str().unwrap());
        check(&index, &std::fs::read_to_string(&index).unwrap());
    }
    let pictures = |folder: &Path| {
        let all =
            files(&folder.join("clips")).into_iter().filter(|(path, _)| path.extension().unwrap() == "jpg");
        all.map(|(path, bytes)| (path.strip_prefix(folder).unwrap().to_path_buf(), bytes))
            .collect::<BTreeMap<_, _>>()
    };
    assert!(pictures(&all).len() == 96 && pictures(&all) == pictures(&shared));
    assert_eq!(pages(&shared.join("clips")).len(), 3);
}

#[test]
fn inputs_that_cannot_be_used_are_errors_with_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let world = world(root.path());
    let output = root.path().join("pages");
    let fails = |data: &Path, tracks: &Path, media: &Path, output: &Path, words: &str| {
        let said = Command::new(UTR_TRAIN)
            .args(["inspect", "--data"])
            .arg(data)
            .arg("--tracks")
            .arg(tracks)
            .arg("--media-root")
            .arg(media)
            .arg("--output")
            .arg(output)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(2) && text.contains(words), "{words}: {text}");
    };
    let (data, tracks, none) =
        (world.join("data.jsonl"), world.join("tracks.jsonl"), root.path().join("none"));
    fails(&none, &tracks, &world, &output, "none");
    fails(&data, &none, &world, &output, "none");
    fails(&data, &tracks, &none, &output, "--media-root");
    fails(&data, &tracks, &world, &world, "holds the media");
    fails(&data, &tracks, &world, &data, "not a folder");
    let silent = root.path().join("silent.jsonl");
    std::fs::write(
        &silent,
        r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#,
    )
    .unwrap();
    fails(&silent, &tracks, &world, &output, "none of the 1 record");
    assert!(!output.exists());
    // Pages are written all the same: they have the reasons.
    let empty = root.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    fails(&data, &tracks, &empty, &output, "none of the 3 clips could be read");
    assert!(output.join("index.html").exists());
}
