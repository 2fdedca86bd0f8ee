//! Training on several ranks: the same bits as on one, whatever happens to them.
//!
//! In: the binary that cargo built, started as a launcher starts it. Out: losses and weights beside those of one process, and what ranks say
//! when one of them is lost or is not like the others.

mod tiny;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tiny::{done, losses, recipe, train};

/// How far losses of several ranks may lie from those of one: not at all, on machines of one kind.
const TOLERANCE: f64 = 0.0;

/// How soon the other ranks must have ended after one was lost.
const NOTICE: Duration = Duration::from_secs(20);

/// Starts rank by rank; `change` may alter a rank's recipe and run folder.
fn start(size: usize, runs: &[(&PathBuf, &PathBuf)]) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let one = |(rank, (recipe, run)): (usize, &(&PathBuf, &PathBuf))| {
        let mut command = train("tune", recipe, run, "1");
        command
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .args(["--rank-timeout", "60"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    runs.iter().enumerate().map(one).collect()
}

/// What every rank that must fail said.
fn refused(children: Vec<Child>) -> Vec<String> {
    let end = |child: Child| {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    children.into_iter().map(end).collect()
}

fn same(a: &Path, b: &Path) {
    let (want, got) = (losses(a), losses(b));
    assert_eq!(want.len(), got.len());
    for (step, loss) in &want {
        assert!((loss - got[step]).abs() <= TOLERANCE, "update {step}: {loss} and {}", got[step]);
    }
    let file = |run: &Path, name: &str| {
        std::fs::read(run.join(std::fs::read_to_string(run.join("latest")).unwrap()).join(name)).unwrap()
    };
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(file(a, name) == file(b, name), "{name} differs");
    }
}

#[test]
fn two_ranks_end_where_one_does_and_a_run_may_change_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 2, 12);
    let (whole, two, mixed) =
        (folder.path().join("one"), folder.path().join("two"), folder.path().join("mixed"));
    done(train("tune", &recipe, &whole, "2").output().unwrap());
    let said: Vec<String> = start(2, &[(&recipe, &two); 2])
        .into_iter()
        .map(|child| done(child.wait_with_output().unwrap()))
        .collect();
    // Rank 0 alone says where the checkpoint is.
    assert!(said[0].contains("step-14-stage-2") && said[1].is_empty(), "{said:?}");
    same(&whole, &two);

    // One of two ranks is killed; the other one says so and ends, and one process goes on.
    let mut children = start(2, &[(&recipe, &mixed); 2]);
    let began = Instant::now();
    while losses(&mixed).len() < 7 && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut lost = children.pop().unwrap();
    lost.kill().unwrap();
    lost.wait().unwrap();
    let killed = Instant::now();
    let said = refused(children);
    assert!(killed.elapsed() < NOTICE, "{:?}", killed.elapsed());
    assert!(said[0].contains("rank 1 was lost") && said[0].contains("last good checkpoint"), "{said:?}");
    done(train("tune", &recipe, &mixed, "2").output().unwrap());
    same(&whole, &mixed);
}

#[test]
fn in_bf16_two_ranks_end_where_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 0, 6);
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, format!("precision = \"bf16\"\n{text}")).unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    done(train("tune", &recipe, &one, "2").output().unwrap());
    for child in start(2, &[(&recipe, &two); 2]) {
        done(child.wait_with_output().unwrap());
    }
    same(&one, &two);
}

#[test]
fn ranks_that_add_up_their_own_gradients_differ_from_one_by_rounding_alone() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 2, 6);
    let text = std::fs::read_to_string(&recipe).unwrap();
    let text = text.replace("accumulate = 2", "accumulate = 6");
    std::fs::write(&recipe, &text).unwrap();
    let own = folder.path().join("own.toml");
    std::fs::write(&own, format!("rank_sums = true\n{text}")).unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    done(train("tune", &recipe, &one, "2").output().unwrap());
    for child in start(2, &[(&own, &two); 2]) {
        done(child.wait_with_output().unwrap());
    }
    let (want, got) = (losses(&one), losses(&two));
    assert_eq!(want.len(), got.len());
    for (step, loss) in &want {
        assert!((loss - got[step]).abs() <= 1e-3 * loss, "update {step}: {loss} and {}", got[step]);
    }
}

#[test]
fn ranks_that_differ_are_refused_before_they_train() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 0, 6);
    let (run, other) = (folder.path().join("run"), folder.path().join("other"));
    let changed = folder.path().join("changed.toml");
    std::fs::write(&changed, std::fs::read_to_string(&recipe).unwrap().replace("seed = 3", "seed = 4"))
        .unwrap();
    for said in refused(start(2, &[(&recipe, &run), (&changed, &run)])) {
        assert!(said.contains("rank 1 and rank 0 differ in the recipe"), "{said}");
    }
    assert!(!run.exists(), "something was written");

    // Another folder with other weights.
    done(train("tune", &changed, &other, "2").output().unwrap());
    std::fs::remove_file(other.join("latest")).unwrap();
    for said in refused(start(2, &[(&recipe, &run), (&recipe, &other)])) {
        assert!(said.contains("rank 1 and rank 0 differ in the weights"), "{said}");
    }
    let said = refused(start(3, &[(&recipe, &run); 3]));
    assert!(said.iter().all(|said| said.contains("too few for 3 ranks")), "{said:?}");
}

#[test]
fn a_rank_that_never_comes_is_missed_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 0, 2);
    let mut command = train("tune", &recipe, &folder.path().join("run"), "1");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    command.env("RANK", "0").env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1");
    command.env("MASTER_PORT", port.to_string()).args(["--rank-timeout", "1"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("waited for rank 1 of 2"), "{said}");
}
