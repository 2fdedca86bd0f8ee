//! How ranks meet: all call on rank 0, learn from it where the others listen, and close the ring.
//!
//! Comes in: a [`Place`] and how long to wait. Goes out: a [`Ring`]. Whoever calls and is no rank of this run is turned away; a rank of another number of ranks, or
//! one that is there twice, ends the meeting for all. A rank that rank 0 sees on its own loopback is on rank 0's machine: the others reach it
//! at the address that they reach rank 0 by.

use super::link::{Incoming, Outgoing};
use super::place::Place;
use super::ring::Ring;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Begins every greeting; the number changes with the frames.
const MAGIC: &str = "utr-train ranks 1";

/// How long a caller may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);

/// How long to wait before trying again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a rank says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    magic: String,
    rank: usize,
    size: usize,
    /// Where it listens for the rank before it.
    port: u16,
}

/// Meets the other ranks; waits for them, now and in every later exchange, `timeout` at most.
pub fn join(place: &Place, timeout: Duration) -> Result<Ring> {
    let until = Instant::now() + timeout;
    let own = listen(&place.host, 0)?;
    let hello = Hello {
        magic: MAGIC.into(),
        rank: place.rank,
        size: place.size,
        port: own.local_addr().context("asking for the port of this rank")?.port(),
    };
    let addresses = match place.rank {
        0 => host(place, &hello, until, timeout)?,
        _ => call(place, &hello, until, timeout)?,
    };
    let (next, previous) = ((place.rank + 1) % place.size, (place.rank + place.size - 1) % place.size);
    let address =
        addresses.get(next).with_context(|| format!("rank 0 did not say where rank {next} listens"))?;
    let stream =
        connect(address, until).with_context(|| format!("connecting to rank {next} at {address}"))?;
    let mut next = Outgoing::new(stream, next, timeout)?;
    next.send(&serde_json::to_vec(&hello)?)?;
    next.flush()?;
    loop {
        let (stream, _) = accept(&own, until).with_context(|| format!("waiting for rank {previous}"))?;
        match greeting(&stream) {
            Some((hello, caller)) if hello.rank == previous && hello.size == place.size => {
                let previous = caller.known_as(previous, timeout)?;
                return Ok(Ring::new(place.rank, place.size, next, previous));
            }
            _ => {}
        }
    }
}

/// Rank 0: gathers the others and tells all of them where each listens.
fn host(place: &Place, own: &Hello, until: Instant, timeout: Duration) -> Result<Vec<String>> {
    let door = listen(&place.host, place.port)?;
    let mut callers: Vec<Option<(TcpStream, String)>> = (0..place.size).map(|_| None).collect();
    while callers.iter().skip(1).any(Option::is_none) {
        let missing = callers.iter().enumerate().skip(1).filter(|(_, c)| c.is_none());
        let missing = missing.map(|(rank, _)| rank.to_string()).collect::<Vec<_>>().join(", ");
        let (stream, from) = accept(&door, until)
            .with_context(|| format!("rank 0 waited for rank {missing} of {}", place.size))?;
        let Some((hello, _)) = greeting(&stream) else { continue };
        let wrong = match callers.get(hello.rank) {
            _ if hello.size != place.size => Some(format!(
                "rank {} was started as one of {} ranks, rank 0 as one of {}",
                hello.rank, hello.size, place.size
            )),
            Some(None) if hello.rank > 0 => None,
            _ => Some(format!("rank {} is there twice", hello.rank)),
        };
        if let Some(wrong) = wrong {
            let others = callers.into_iter().flatten().map(|(stream, _)| stream).chain([stream]);
            others.for_each(|s| drop(Outgoing::new(s, 0, GREETING).map(|mut out| out.abort(&wrong))));
            bail!(wrong);
        }
        // Empty: the machine of rank 0, by whatever name a rank has for it.
        let ip = from.ip().to_canonical();
        let ip = if ip.is_loopback() { String::new() } else { ip.to_string() };
        callers[hello.rank] = Some((stream, join_address(&ip, hello.port)));
    }
    let table = callers.iter().map(|c| c.as_ref().map_or(join_address("", own.port), |(_, a)| a.clone()));
    let table: Vec<String> = table.collect();
    for (rank, (stream, _)) in callers.into_iter().enumerate().filter_map(|(rank, c)| Some((rank, c?))) {
        let mut out = Outgoing::new(stream, rank, timeout)?;
        out.send(&serde_json::to_vec(&table)?)?;
        out.flush()?;
    }
    Ok(table.into_iter().map(|address| fill(&address, &place.host)).collect())
}

/// Every other rank: calls on rank 0 and hears where all listen.
fn call(place: &Place, hello: &Hello, until: Instant, timeout: Duration) -> Result<Vec<String>> {
    let door = join_address(&place.host, place.port);
    let stream =
        connect(&door, until).with_context(|| format!("rank {} calling on rank 0 at {door}", place.rank))?;
    let mut out = Outgoing::new(stream.try_clone().context("using the connection to rank 0")?, 0, timeout)?;
    out.send(&serde_json::to_vec(hello)?)?;
    out.flush()?;
    let answer = Incoming::new(stream, 0, timeout)?.receive()?;
    let table: Vec<String> = serde_json::from_slice(&answer).context("reading where the ranks listen")?;
    Ok(table.iter().map(|address| fill(address, &place.host)).collect())
}

/// `ip:port`, with brackets around an IPv6 address.
fn join_address(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Puts rank 0's host where an address has none.
fn fill(address: &str, host: &str) -> String {
    match address.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => join_address(host, port),
        None => address.to_string(),
    }
}

/// Listens for ranks: on loopback where rank 0's host is this machine's loopback by name, else on all interfaces.
fn listen(host: &str, port: u16) -> Result<TcpListener> {
    let literal = host.parse::<IpAddr>().ok();
    let local = host == "localhost" || literal.is_some_and(|ip| ip.is_loopback());
    let ip = match (local, literal.is_some_and(|ip| ip.is_ipv6())) {
        (true, true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (true, false) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (false, true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        (false, false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let listener = TcpListener::bind((ip, port)).with_context(|| {
        format!("listening for ranks on {ip}, port {port}; name another MASTER_PORT if it is taken")
    })?;
    listener.set_nonblocking(true).context("listening for ranks")?;
    Ok(listener)
}

fn accept(listener: &TcpListener, until: Instant) -> Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false).context("taking a call")?;
                return Ok((stream, from));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(Instant::now() < until, "it did not come in time (--rank-timeout)");
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error).context("taking a call"),
        }
    }
}

fn connect(address: &str, until: Instant) -> Result<TcpStream> {
    let once = || {
        let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, GREETING) {
                // Nobody listens, and the call met itself: a port of this machine's own range can do that.
                Ok(stream) if stream.local_addr()? == address => {}
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    loop {
        match once() {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= until => {
                return Err(error).context("it did not answer in time (--rank-timeout)");
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Who calls, where it is a rank of this program, and the line to it: what came right behind the greeting is already in there.
fn greeting(stream: &TcpStream) -> Option<(Hello, Incoming)> {
    let mut caller = Incoming::new(stream.try_clone().ok()?, usize::MAX, GREETING).ok()?;
    let hello: Hello = serde_json::from_slice(&caller.receive().ok()?).ok()?;
    (hello.magic == MAGIC).then_some((hello, caller))
}

#[cfg(test)]
mod tests {
    use super::super::{Alone, Transport, exchange_numbers, owners};
    use super::*;
    use std::io::Write;

    fn place(rank: usize, size: usize, port: u16) -> Place {
        Place { rank, size, host: "127.0.0.1".into(), port, local: rank }
    }

    /// A port that was free a moment ago.
    fn port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Runs `work` on `size` ranks, each a thread.
    fn ranks<T: Send>(size: usize, work: impl Fn(Result<Ring>) -> T + Sync) -> Vec<T> {
        let port = port();
        std::thread::scope(|scope| {
            let work = &work;
            let one =
                |rank| scope.spawn(move || work(join(&place(rank, size, port), Duration::from_secs(20))));
            let threads: Vec<_> = (0..size).map(one).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    /// Terms that show every change of the order of additions.
    fn terms(range: std::ops::Range<usize>, sizes: &[usize]) -> Vec<Vec<Vec<f32>>> {
        let value =
            |term: usize, i: usize| ((term * 7919 + i * 104_729) % 1000) as f32 * 10f32.powi(term as i32 - 3);
        range.map(|term| sizes.iter().map(|n| (0..*n).map(|i| value(term, i)).collect()).collect()).collect()
    }

    #[test]
    fn sums_are_those_of_one_process_bit_by_bit() {
        let sizes = [3, 70_000, 1, 131_072, 500, 90_001];
        let want = Alone.reduce(terms(0..7, &sizes), &[0; 6]).unwrap();
        for size in 2..=4 {
            let owners = owners(&sizes, size);
            let got = ranks(size, |ring| {
                let mut ring = ring.unwrap();
                let rank = ring.rank();
                let mine = crate::parts::Shard { index: rank, of: size }.range(7);
                let numbers = exchange_numbers(&mut ring, &[rank as f64, 0.5]).unwrap();
                assert_eq!(numbers, (0..size).map(|r| vec![r as f64, 0.5]).collect::<Vec<_>>());
                let mut own = ring.reduce(terms(mine, &sizes), &owners).unwrap().into_iter();
                let whole = owners.iter().zip(sizes).map(|(owner, n)| {
                    let mut data = if *owner == rank { own.next().unwrap() } else { vec![0.0; n] };
                    ring.broadcast(*owner, &mut data).unwrap();
                    data
                });
                whole.collect::<Vec<_>>()
            });
            assert!(got.iter().all(|got| *got == want), "{size} ranks");
        }
    }

    #[test]
    fn one_that_leaves_ends_the_others_and_is_named() {
        let said = ranks(3, |ring| {
            let mut ring = ring.unwrap();
            if ring.rank() == 1 {
                return String::new();
            }
            let error = (0..).find_map(|_| exchange_numbers(&mut ring, &[1.0]).err()).unwrap();
            ring.abort(&error.to_string());
            error.to_string()
        });
        assert!([0, 2].iter().all(|r| said[*r].starts_with("rank 1 was lost")), "{said:?}");
        let said = ranks(3, |ring| {
            let mut ring = ring.unwrap();
            if ring.rank() == 1 {
                ring.abort("the disk is full");
                return String::new();
            }
            let error = exchange_numbers(&mut ring, &[1.0]).unwrap_err();
            ring.abort(&error.to_string());
            error.to_string()
        });
        assert!([0, 2].iter().all(|r| said[*r] == "rank 1 failed: the disk is full"), "{said:?}");
    }

    #[test]
    fn strangers_are_turned_away_and_other_ranks_refused() {
        let port = port();
        let late = |rank, size| move || join(&place(rank, size, port), Duration::from_secs(20));
        let host = std::thread::spawn(late(0, 2));
        let until = Instant::now() + Duration::from_secs(10);
        let mut stranger = connect(&format!("127.0.0.1:{port}"), until).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let other = late(1, 3)();
        let words = |result: Result<Ring>| format!("{:#}", result.err().unwrap());
        for text in [words(host.join().unwrap()), words(other)] {
            assert!(text.contains("one of 3 ranks, rank 0 as one of 2"), "{text}");
        }
        let waiting = join(&place(0, 2, port), Duration::from_millis(50));
        assert!(words(waiting).contains("waited for rank 1 of 2"));
    }

    #[test]
    fn a_rank_that_hangs_is_named_in_time() {
        let port = port();
        let hangs = std::thread::spawn(move || {
            let ring = join(&place(1, 2, port), Duration::from_secs(20));
            std::thread::sleep(Duration::from_secs(3));
            drop(ring);
        });
        let mut ring = join(&place(0, 2, port), Duration::from_secs(1)).unwrap();
        let begun = Instant::now();
        let error = exchange_numbers(&mut ring, &[1.0]).unwrap_err().to_string();
        assert!(
            error.starts_with("rank 1 was silent for 1 s") && begun.elapsed() < Duration::from_secs(2),
            "{error}"
        );
        hangs.join().unwrap();
    }
}
