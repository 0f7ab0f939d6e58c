//! Packets between pods, nodes and the host outside: what a scenario sends, and what it makes of the answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::command::wait_for;
use crate::lab::Node;
use crate::stage::{Pod, Stage};

/// Seconds between two requests of [`Stage::pings_during`].
const INTERVAL: f64 = 0.05;
/// How long an answer may take, in seconds: what was sent later than this before the end is not judged.
const IN_FLIGHT: f64 = 1.0;
/// The longest time without an answer that is no outage, in seconds.
const OUTAGE: f64 = 0.5;
/// How long until two ends that are both ready have heard of each other: a pod is ready when its own node has its
/// flows, and the others follow a moment later.
const ACQUAINTANCE: Duration = Duration::from_secs(10);

impl Stage<'_> {
    /// Three pings, all of them answered, once the two have heard of each other. If one is lost, ten in a row must pass:
    /// see [`Pings::without_outage`] for what loses single packets.
    pub fn pings(&self, from: &Pod, to: IpAddr) -> Result<()> {
        three(to, |line| self.sh(from, line))
            .with_context(|| format!("{} cannot ping {to}", from.name))
    }

    /// The same from a node.
    pub fn node_pings(&self, from: &Node, to: IpAddr) -> Result<()> {
        three(to, |line| self.node_sh(from, line))
            .with_context(|| format!("node {} cannot ping {to}", from.name))
    }

    /// Fetch a page; returns its text.
    pub fn fetches(&self, from: &Pod, url: &str) -> Result<String> {
        self.sh(from, &format!("curl -sS -f -k -m 5 '{url}'"))
            .with_context(|| format!("{} cannot fetch {url}", from.name))
    }

    /// Ping all the time while something else happens, and say how that went. Begins once the two talk.
    pub fn pings_during<T>(
        &self,
        from: &Pod,
        to: IpAddr,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Pings)> {
        self.pings(from, to)?;
        let child = self
            .in_pod(from, "ping")?
            .args(["-D", "-O", "-i", &INTERVAL.to_string()])
            .arg(to.to_string())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let done = work();
        // What the end of the work does to the packets is part of the story.
        std::thread::sleep(Duration::from_secs_f64(IN_FLIGHT * 1.5));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        // ping prints its summary on SIGINT.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let output = child.wait_with_output()?;
        let done = done?;
        let text = String::from_utf8_lossy(&output.stdout);
        let pings = Pings::read(&text).with_context(|| format!("ping said {text:?}"))?;
        Ok((done, pings))
    }

    /// Send this many bytes over TCP from one pod to another, over each family that both have. Small packets also pass
    /// with a wrong MTU or a wrong checksum; these do not.
    pub fn transfers(&self, from: &Pod, to: &Pod, bytes: usize) -> Result<()> {
        from.reachable(to)
            .try_for_each(|address| self.transfer(from, to, address, bytes))
    }

    fn transfer(&self, from: &Pod, to: &Pod, address: IpAddr, bytes: usize) -> Result<()> {
        let server = self
            .in_pod(to, "timeout")?
            .args(["20", "sh", "-c", &format!("nc -l {address} 9099 | wc -c")])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        self.eventually("the receiver to listen", Duration::from_secs(5), || {
            let sockets = self.sh(to, "ss -Hltn sport = :9099")?;
            ensure!(!sockets.trim().is_empty(), "it does not");
            Ok(())
        })?;
        let sent = self.sh(
            from,
            &format!("head -c {bytes} /dev/zero | timeout 15 nc -N {address} 9099"),
        );
        let arrived = server.wait_with_output()?;
        let arrived = String::from_utf8_lossy(&arrived.stdout).trim().to_owned();
        sent.with_context(|| format!("{} cannot send to {address}", from.name))?;
        ensure!(
            arrived == bytes.to_string(),
            "{arrived} of {bytes} bytes arrived at {}/{} ({address})",
            to.namespace,
            to.name
        );
        Ok(())
    }
}

/// Ping through `shell` until there is an answer, then a few times, of which each must be answered: `ping` itself is
/// content with one.
fn three(to: IpAddr, shell: impl Fn(&str) -> Result<String>) -> Result<()> {
    wait_for("a first answer", ACQUAINTANCE, || {
        shell(&format!("ping -q -c 1 -W 1 {to}")).map(Some)
    })?;
    let series = |count: u8, interval: f64| {
        let text = shell(&format!("ping -c {count} -i {interval} -W 2 {to}"))?;
        Pings::read(&text)
            .with_context(|| format!("ping said {text:?}"))?
            .all_answered(&format!("to {to}"))
    };
    series(3, 0.2).or_else(|_| series(10, INTERVAL))
}

/// How a series of pings went.
#[derive(Clone, Debug, PartialEq)]
pub struct Pings {
    /// Echo requests whose answer had the time to come.
    pub sent: u64,
    /// Those that stayed without an answer: the sequence number (the first is 1), and the time of the answer before
    /// it in seconds after the first answer, if `ping` was told to print times.
    pub lost: Vec<(u64, f64)>,
    /// The longest time without an answer, in seconds.
    pub gap: f64,
    /// When that began, in seconds after the first answer.
    pub at: f64,
}

impl Pings {
    /// From the output of `ping`; times are known if it ran with `-D`, and a tail that was still under way at its end
    /// is left out of the count then.
    fn read(text: &str) -> Option<Self> {
        let line = text
            .lines()
            .find(|line| line.contains("packets transmitted"))?;
        let mut sent: u64 = line.split(' ').next()?.parse().ok()?;
        let mut answers: BTreeMap<u64, f64> = BTreeMap::new();
        let mut end: f64 = 0.0;
        for line in text.lines() {
            let time = line
                .strip_prefix('[')
                .and_then(|rest| rest.split(']').next()?.parse().ok());
            end = end.max(time.unwrap_or(0.0));
            if line.contains(" bytes from ") {
                let number = line.split("icmp_seq=").nth(1)?.split(' ').next()?;
                answers
                    .entry(number.parse().ok()?)
                    .or_insert(time.unwrap_or(0.0));
            }
        }
        let start = answers.values().next().copied().unwrap_or(end);
        if let Some((last, time)) = answers.last_key_value()
            && end > 0.0
            && end - time < IN_FLIGHT
        {
            sent = *last;
        }
        let mut lost = Vec::new();
        let mut before = start;
        for number in 1..=sent {
            match answers.get(&number) {
                Some(time) => before = *time,
                None => lost.push((number, before - start)),
            }
        }
        let (mut gap, mut at) = (0.0, 0.0);
        let times: Vec<f64> = answers.values().copied().chain([end.max(start)]).collect();
        for pair in times.windows(2) {
            if pair[1] - pair[0] > gap {
                (gap, at) = (pair[1] - pair[0], pair[0] - start);
            }
        }
        Some(Self {
            sent,
            lost,
            gap,
            at,
        })
    }

    /// Fails if there was no answer for [`OUTAGE`] seconds, or if more than two in a hundred were lost.
    ///
    /// Open vSwitch's userspace datapath, which the lab runs on, forgets its routes for an instant whenever a link of
    /// its node comes or goes (`ip link add` is enough, no OVN is needed), and what it translates for a tunnel in that
    /// instant is dropped until it looks again. A flow, tunnel or policy that is missing is missing for longer.
    pub fn without_outage(&self, whose: &str) -> Result<()> {
        let many = u64::try_from(self.lost.len())? * 100 > 2 * self.sent.max(100);
        if self.gap > OUTAGE && !self.lost.is_empty() || many {
            return self.all_answered(whose);
        }
        Ok(())
    }

    /// How many were sent and lost, in words.
    pub fn told(&self) -> String {
        match self.lost.len() {
            0 => format!("{} pings, none lost", self.sent),
            lost => format!(
                "{} pings, {lost} lost, never more than {:.2} s without an answer",
                self.sent, self.gap
            ),
        }
    }

    /// Fails if one was lost.
    pub fn all_answered(&self, whose: &str) -> Result<()> {
        let some: Vec<String> = self
            .lost
            .iter()
            .take(5)
            .map(|(number, at)| format!("{number} ({at:.2} s after the first answer)"))
            .collect();
        ensure!(
            self.lost.is_empty(),
            "{} of {} pings {whose} were lost: number {}{}; the longest gap lasted {:.2} s and began {:.2} s after the \
             first answer",
            self.lost.len(),
            self.sent,
            some.join(", "),
            if self.lost.len() > some.len() {
                ", ..."
            } else {
                ""
            },
            self.gap,
            self.at
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
        [100.000] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.1 ms\n\
        [100.050] 64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=0.1 ms\n\
        [100.100] no answer yet for icmp_seq=3\n";

    fn read(rest: &str, sent: u64) -> Pings {
        let end = format!(
            "\n--- 10.0.0.1 ping statistics ---\n{sent} packets transmitted, 3 received, 75% packet loss, time 550ms\n"
        );
        Pings::read(&format!("{HEAD}{rest}{end}")).unwrap()
    }

    #[test]
    fn the_words_of_ping_are_read() {
        let pings = read(
            "[100.550] 64 bytes from 10.0.0.1: icmp_seq=4 ttl=64 time=0.1 ms\n",
            4,
        );
        assert_eq!((pings.sent, pings.lost.len()), (4, 1));
        assert_eq!(pings.lost[0].0, 3);
        assert!(
            (pings.gap - 0.5).abs() < 1e-6 && (pings.at - 0.05).abs() < 1e-6,
            "{pings:?}"
        );
        let words = pings.all_answered("here").unwrap_err().to_string();
        assert!(
            words.contains("1 of 4 pings here were lost: number 3 (0.05 s"),
            "{words}"
        );
    }

    #[test]
    fn what_was_under_way_at_the_end_is_not_lost() {
        let pings = read(
            "[100.120] 64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=70 ms\n\
             [100.200] no answer yet for icmp_seq=4\n",
            5,
        );
        assert_eq!(pings.sent, 3);
        pings.all_answered("here").unwrap();
    }

    #[test]
    fn single_losses_are_no_outage() {
        let lost = |numbers: &[u64], gap: f64| Pings {
            sent: 500,
            lost: numbers.iter().map(|n| (*n, 0.0)).collect(),
            gap,
            at: 0.0,
        };
        lost(&[], 0.1).without_outage("here").unwrap();
        lost(&[7, 8, 100], 0.2).without_outage("here").unwrap();
        lost(&[7, 8], 0.6).without_outage("here").unwrap_err();
        let every_other: Vec<u64> = (0..11).map(|n| 2 * n + 1).collect();
        lost(&every_other, 0.1).without_outage("here").unwrap_err();
        // The machine stood still, and yet every packet came through.
        lost(&[], 3.0).without_outage("here").unwrap();
    }

    #[test]
    fn silence_until_the_end_is_loss() {
        let pings = read("[103.000] no answer yet for icmp_seq=40\n", 41);
        assert_eq!((pings.sent, pings.lost.len()), (41, 39));
        assert!(pings.gap > 2.9, "{pings:?}");
    }

    #[test]
    fn without_times_every_request_counts() {
        let text = "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.1 ms\n\
            64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.1 ms\n\
            3 packets transmitted, 2 received, 33% packet loss, time 400ms\n";
        assert_eq!(Pings::read(text).unwrap().lost[0].0, 2);
        let none = "3 packets transmitted, 0 received, 100% packet loss, time 400ms\n";
        assert_eq!(Pings::read(none).unwrap().lost.len(), 3);
    }
}
