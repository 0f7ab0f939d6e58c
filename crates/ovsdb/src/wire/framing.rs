//! Cuts a stream of concatenated JSON objects into messages.

use thiserror::Error;

/// The stream is not a sequence of JSON objects; the connection cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    #[error("byte {0:#04x} where a JSON object should begin")]
    Garbage(u8),
    #[error("a message of more than {0} bytes")]
    TooLong(usize),
}

/// Bytes as they arrive, and how far they have been looked at: each byte is scanned once, however it is cut up.
///
/// OVSDB has no delimiter between messages: one ends where the braces outside strings balance.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the first message begins that was not handed out.
    start: usize,
    /// How far it has been scanned.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    limit: usize,
}

impl FrameBuffer {
    /// `limit`: longest message in bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            limit,
        }
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// The buffer to read more bytes to the end of. Anything but appending breaks the framing.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.compact();
        &mut self.bytes
    }

    /// Bytes received and not handed out.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn compact(&mut self) {
        /// A dump of the whole database should not keep its memory for ever.
        const KEEP: usize = 1 << 20;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
        } else {
            return;
        }
        self.scanned -= self.start;
        self.start = 0;
    }

    /// The next whole message, if it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingError> {
        while self.scanned < self.bytes.len() {
            let byte = self.bytes[self.scanned];
            if self.depth == 0 {
                if byte == b'{' {
                    self.start = self.scanned;
                    self.depth = 1;
                } else if byte.is_ascii_whitespace() {
                    self.start = self.scanned + 1;
                } else {
                    return Err(FramingError::Garbage(byte));
                }
                self.scanned += 1;
                continue;
            }
            let run = &self.bytes[self.scanned..];
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                    self.scanned += 1;
                    continue;
                }
                match run.iter().position(|b| matches!(b, b'"' | b'\\')) {
                    None => self.scanned = self.bytes.len(),
                    Some(at) => {
                        self.in_string = run[at] == b'\\';
                        self.escaped = self.in_string;
                        self.scanned += at + 1;
                    }
                }
            } else {
                match run.iter().position(|b| matches!(b, b'"' | b'{' | b'}')) {
                    None => self.scanned = self.bytes.len(),
                    Some(at) => {
                        self.scanned += at + 1;
                        match run[at] {
                            b'"' => self.in_string = true,
                            b'{' => self.depth += 1,
                            _ => self.depth -= 1,
                        }
                        if self.depth == 0 {
                            let frame = self.start..self.scanned;
                            self.start = self.scanned;
                            return Ok(Some(&self.bytes[frame]));
                        }
                    }
                }
            }
        }
        if self.pending() > self.limit {
            return Err(FramingError::TooLong(self.limit));
        }
        Ok(None)
    }
}
