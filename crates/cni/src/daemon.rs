//! One HTTP exchange with the daemon over its unix socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for the socket to be there: a daemon that is being replaced is back in a moment, and the request
/// has not been sent yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// No answer is longer; protects against something else behind the socket.
const LARGEST_BODY: usize = 1 << 20;
const LONGEST_LINE: u64 = 8 << 10;
const MOST_HEADERS: usize = 64;

/// The daemon's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listens.
    Down(io::Error),
    /// No answer in time.
    Slow(Duration),
    /// The connection broke, or the answer is not HTTP.
    Broken(io::Error),
}

/// Posts JSON and waits for the answer, `timeout` for everything together.
///
/// The exchange runs in a thread of its own, because connecting to a unix socket whose owner does not accept blocks
/// without a limit. A thread left behind ends with the process.
pub fn post(
    socket: &str,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<Answer, NoAnswer> {
    let (sender, receiver) = mpsc::channel();
    let (socket, path) = (socket.to_owned(), path.to_owned());
    let patience = CONNECT_PATIENCE.min(timeout);
    let spawned = thread::Builder::new().spawn(move || {
        let answer = connect(&socket, patience)
            .map_err(NoAnswer::Down)
            .and_then(|stream| exchange(stream, &path, &body).map_err(NoAnswer::Broken));
        let _ = sender.send(answer);
    });
    if let Err(error) = spawned {
        return Err(NoAnswer::Broken(error));
    }
    match receiver.recv_timeout(timeout) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(NoAnswer::Slow(timeout)),
        Err(RecvTimeoutError::Disconnected) => {
            Err(NoAnswer::Broken(io::ErrorKind::ConnectionAborted.into()))
        }
    }
}

fn connect(socket: &str, patience: Duration) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::WouldBlock
                ) && start.elapsed() + CONNECT_PAUSE < patience =>
            {
                thread::sleep(CONNECT_PAUSE);
            }
            done => return done,
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str, body: &[u8]) -> io::Result<Answer> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: kube-ovn-daemon\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    // One write: the daemon gives slow headers little time.
    stream.write_all(&request)?;
    read_answer(&mut BufReader::new(stream))
}

/// How the end of a body is found (RFC 9112, section 6.3).
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

fn read_answer(reader: &mut impl BufRead) -> io::Result<Answer> {
    loop {
        let status = read_status(reader)?;
        let framing = read_headers(reader)?;
        if (100..200).contains(&status) {
            continue; // An interim answer; the real one follows.
        }
        let mut body = Vec::new();
        if status != 204 && status != 304 {
            read_body(reader, &framing, &mut body)?;
        }
        return Ok(Answer { status, body });
    }
}

fn read_status(reader: &mut impl BufRead) -> io::Result<u16> {
    let line = read_line(reader)?;
    let mut words = line.split(' ');
    match (words.next(), words.next().map(str::parse)) {
        (Some(protocol), Some(Ok(status))) if protocol.starts_with("HTTP/1.") => Ok(status),
        _ => Err(malformed(format!("`{line}` is not an HTTP status"))),
    }
}

fn read_headers(reader: &mut impl BufRead) -> io::Result<Framing> {
    let mut framing = Framing::UntilClose;
    for _ in 0..MOST_HEADERS {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(framing);
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(malformed(format!("`{line}` is not an HTTP header")));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value
                .parse()
                .map_err(|_| malformed(format!("`{value}` is not a length")))?;
            if !matches!(framing, Framing::Chunked) {
                framing = Framing::Length(length);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            && value.eq_ignore_ascii_case("chunked")
        {
            framing = Framing::Chunked;
        }
    }
    Err(malformed("too many HTTP headers"))
}

fn read_body(reader: &mut impl BufRead, framing: &Framing, body: &mut Vec<u8>) -> io::Result<()> {
    match *framing {
        Framing::Length(length) => read_exactly(reader, length, body),
        Framing::UntilClose => {
            let limit = LARGEST_BODY as u64 + 1;
            reader.take(limit).read_to_end(body)?;
            if body.len() > LARGEST_BODY {
                return Err(malformed("the answer is too long"));
            }
            Ok(())
        }
        Framing::Chunked => loop {
            let line = read_line(reader)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| malformed(format!("`{line}` is not a chunk's size")))?;
            if size == 0 {
                while !read_line(reader)?.is_empty() {} // Trailers.
                return Ok(());
            }
            read_exactly(reader, size, body)?;
            if !read_line(reader)?.is_empty() {
                return Err(malformed("a chunk is longer than it says"));
            }
        },
    }
}

fn read_exactly(reader: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let start = body.len();
    if length > LARGEST_BODY - start {
        return Err(malformed("the answer is too long"));
    }
    body.resize(start + length, 0);
    reader.read_exact(&mut body[start..])
}

/// A line without its end; an end of input inside it is an error.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LONGEST_LINE).read_line(&mut line)?;
    if line.pop() != Some('\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed inside the answer",
        ));
    }
    if line.ends_with('\r') {
        line.pop();
    }
    Ok(line)
}

fn malformed(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> io::Result<(u16, String)> {
        let answer = read_answer(&mut text.as_bytes())?;
        Ok((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn every_framing_of_a_body() {
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}rest";
        assert_eq!(answer(length).unwrap(), (200, "{}".into()));
        let chunked = "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{\"\r\n3\r\na\":\r\n2\r\n1}\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(answer(chunked).unwrap(), (500, "{\"a\":1}".into()));
        let close = "HTTP/1.0 200 OK\nA: b\n\nhello";
        assert_eq!(answer(close).unwrap(), (200, "hello".into()));
        let empty = "HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answer(empty).unwrap(), (204, String::new()));
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answer(interim).unwrap(), (204, String::new()));
    }

    #[test]
    fn what_is_not_a_whole_answer_is_an_error() {
        for text in [
            "",
            "HTTP/1.1 200",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert!(answer(text).is_err(), "{text:?}");
        }
        assert!(answer(&format!("HTTP/1.1 200 {}", "x".repeat(1 << 14))).is_err());
        assert!(
            answer(&format!(
                "HTTP/1.1 200 OK\r\n{}\r\n",
                "a: b\r\n".repeat(100)
            ))
            .is_err()
        );
        assert!(answer(&format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(2 << 20))).is_err());
    }
}
