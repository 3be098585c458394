//! HTTP as little as these tests need: one request a connection.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::harness::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Asks for a path; `headers` are whole lines.
pub fn get(address: &str, path: &str, headers: &[&str]) -> io::Result<Answer> {
    request(address, "GET", path, headers, "")
}

/// Sends a request and reads its answer, as long as its Content-Length says.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|h| h.starts_with("Host:")) {
        head += &format!("Host: {address}\r\n");
    }
    headers.iter().for_each(|h| head += &format!("{h}\r\n"));
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes())?;
    let (mut read, mut chunk) = (Vec::new(), [0; 16 << 10]);
    loop {
        if let Some(answer) = answer(&read) {
            return Ok(answer);
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read.extend_from_slice(&chunk[..n]),
        }
    }
}

/// `None` while it is not whole.
fn answer(read: &[u8]) -> Option<Answer> {
    let end = read.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: BTreeMap<_, _> = headers.collect();
    let length = headers.get("content-length")?.parse::<usize>().ok()?;
    let body = read.get(end + 4..end + 4 + length)?;
    Some(Answer {
        status,
        headers,
        body: String::from_utf8_lossy(body).into_owned(),
    })
}
