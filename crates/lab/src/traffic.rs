//! Packets between pods, nodes and the host outside: what a scenario sends, and what it makes of the answers.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Node;
use crate::stage::{Pod, Stage};

impl Stage<'_> {
    /// Three pings, all of them answered.
    pub fn pings(&self, from: &Pod, to: IpAddr) -> Result<()> {
        self.sh(from, &format!("ping -q -c 3 -i 0.2 -W 2 {to}"))
            .with_context(|| format!("{} cannot ping {to}", from.name))
            .map(drop)
    }

    /// The same from a node.
    pub fn node_pings(&self, from: &Node, to: IpAddr) -> Result<()> {
        self.node_sh(from, &format!("ping -q -c 3 -i 0.2 -W 2 {to}"))
            .with_context(|| format!("node {} cannot ping {to}", from.name))
            .map(drop)
    }

    /// Fetch a page; returns its text.
    pub fn fetches(&self, from: &Pod, url: &str) -> Result<String> {
        self.sh(from, &format!("curl -sS -f -k -m 5 '{url}'"))
            .with_context(|| format!("{} cannot fetch {url}", from.name))
    }

    /// Ping all the time while something else happens, and say how that went.
    pub fn pings_during<T>(
        &self,
        from: &Pod,
        to: IpAddr,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Pings)> {
        let child = self
            .in_pod(from, "ping")?
            .args(["-D", "-O", "-i", "0.05", "-W", "2"])
            .arg(to.to_string())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        // Let it settle, so that what is counted is what happens meanwhile.
        std::thread::sleep(Duration::from_millis(300));
        let done = work();
        std::thread::sleep(Duration::from_millis(300));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        // ping prints its summary on SIGINT.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let output = child.wait_with_output()?;
        let done = done?;
        let text = String::from_utf8_lossy(&output.stdout);
        let pings = Pings::read(&text).with_context(|| format!("ping said {text:?}"))?;
        Ok((done, pings))
    }

    /// Send this many bytes over TCP from one pod to another. Small packets also pass with a wrong MTU or a wrong
    /// checksum; these do not.
    pub fn transfers(&self, from: &Pod, to: &Pod, bytes: usize) -> Result<()> {
        let address = to.address()?;
        let server = self
            .in_pod(to, "timeout")?
            .args(["20", "sh", "-c", "nc -l -p 9099 | wc -c"])
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
            "{arrived} of {bytes} bytes arrived at {}/{}",
            to.namespace,
            to.name
        );
        Ok(())
    }
}

/// How a long series of pings went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pings {
    /// Echo requests.
    pub sent: u64,
    /// Answers.
    pub received: u64,
    /// The longest time without an answer, in seconds.
    pub gap: f64,
    /// When that began, in seconds after the first answer.
    pub at: f64,
}

impl Pings {
    /// From the output of `ping -D -O`.
    fn read(text: &str) -> Option<Self> {
        let line = text
            .lines()
            .find(|line| line.contains("packets transmitted"))?;
        let mut numbers = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok());
        let (sent, received) = (numbers.next()?, numbers.next()?);
        let answers: Vec<f64> = text
            .lines()
            .filter(|line| line.contains(" bytes from "))
            .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
            .collect();
        let (mut gap, mut at) = (0.0, 0.0);
        for pair in answers.windows(2) {
            if pair[1] - pair[0] > gap {
                (gap, at) = (pair[1] - pair[0], pair[0] - answers[0]);
            }
        }
        Some(Self {
            sent,
            received,
            gap,
            at,
        })
    }

    /// Fails if one was lost.
    pub fn all_answered(&self, whose: &str) -> Result<()> {
        ensure!(
            self.received == self.sent,
            "{} of {} pings {whose} were lost; the longest gap lasted {:.1} s and began {:.1} s after the first answer",
            self.sent - self.received,
            self.sent,
            self.gap,
            self.at
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_ping_are_read() {
        let text = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
            [100.000] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.1 ms\n\
            [100.050] 64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=0.1 ms\n\
            [100.100] no answer yet for icmp_seq=3\n\
            [100.550] 64 bytes from 10.0.0.1: icmp_seq=12 ttl=64 time=0.1 ms\n\n\
            --- 10.0.0.1 ping statistics ---\n\
            12 packets transmitted, 3 received, 75% packet loss, time 550ms\n";
        let pings = Pings::read(text).unwrap();
        assert_eq!((pings.sent, pings.received), (12, 3));
        assert!(
            (pings.gap - 0.5).abs() < 1e-6 && (pings.at - 0.05).abs() < 1e-6,
            "{pings:?}"
        );
        assert!(pings.all_answered("here").is_err());
    }
}
