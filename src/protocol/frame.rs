//! Where one message ends and the next begins: a scan of 5-byte headers, nothing decoded.

/// Bytes of the tag and the length in front of every message after startup.
pub const HEADER_BYTES: usize = 5;

/// A header no server or client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length counts its own four bytes.
    #[error("message length {0} is below 4")]
    TooShort(i32),
    /// No message of a client's begins so.
    #[error("invalid frontend message type {0}")]
    FrontendTag(u8),
    /// Longer than the reader takes.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes of the whole message, tag included.
        length: usize,
        /// Bytes it may have.
        limit: usize,
    },
}

/// Judges a client's message by its first byte, as PostgreSQL does: nobody waits for the rest of what is none.
///
/// # Errors
/// A tag that no frontend message has (PostgreSQL's manual, "Message Formats").
#[inline]
pub fn check_frontend_tag(buffer: &[u8]) -> Result<(), FrameError> {
    match buffer.first() {
        Some(
            b'B' | b'C' | b'D' | b'E' | b'F' | b'H' | b'P' | b'Q' | b'S' | b'X' | b'c' | b'd'
            | b'f' | b'p',
        )
        | None => Ok(()),
        Some(tag) => Err(FrameError::FrontendTag(*tag)),
    }
}

/// Returns the whole length of the first frame in `buffer`, tag included, or `None` while its header is incomplete. The frame's
/// body may not have arrived yet.
///
/// # Errors
/// A length below 4, or over `limit` bytes.
#[inline]
pub fn frame_length(buffer: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    if length < 4 {
        return Err(FrameError::TooShort(length));
    }
    let total = length as usize + 1;
    if total > limit {
        return Err(FrameError::TooLong {
            length: total,
            limit,
        });
    }
    Ok(Some(total))
}
