//! Finds in what a client has sent ahead the SELECTs that may run beside others: whole units of `[Parse] Bind [Describe] Execute Sync`, or
//! a Query of one SELECT, each a transaction of its own, all read already. Looking changes nothing; what is no such unit is left to the
//! ordinary way.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::bind::read_parse;
use super::direct::Call;
use super::prepared::{CacheKey, Prepared};
use super::session::Session;
use super::stream::{Message, execution, execution_bytes};
use crate::protocol::frame::{HEADER_BYTES, frame_length};
use crate::sql::Kind;

/// Describe, Execute and Sync behind a Bind that nothing follows.
const LONE_BYTES: usize = 7 + 10 + 5;

/// A SELECT with its Sync that one shard answers.
pub(super) struct Unit {
    pub(super) call: Call<'static>,
    /// The client has sent a Bind.
    pub(super) confirms: bool,
    /// The client wants the columns described.
    pub(super) describes: bool,
    /// The unnamed statement that its Parse makes.
    pub(super) parsed: Option<Arc<Prepared>>,
    /// Bytes of it in the client's input.
    pub(super) bytes: usize,
}

/// Whole messages, one behind the other; the first may have been taken out already.
struct Frames<'a> {
    taken: Option<&'a Message>,
    input: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(message) = self.taken.take() {
            return Some((message.tag, &message.body));
        }
        let rest = &self.input[self.at..];
        let total = frame_length(rest, usize::MAX).ok()??;
        let frame = rest.get(..total)?;
        self.at += total;
        Some((frame[0], &frame[HEADER_BYTES..]))
    }
}

impl Frames<'_> {
    /// Takes Execute and Sync behind a Bind; whether there is a Describe before them.
    fn execution(&mut self) -> Option<bool> {
        let describes = execution(&self.input[self.at..])?;
        self.at += execution_bytes(describes);
        Some(describes)
    }
}

impl Session {
    /// True when more has been read than the unit that `message` may begin. Nearly always there is nothing: clients wait for answers.
    pub(super) fn has_sent_ahead(&self, message: &Message) -> bool {
        let ahead = self.client.buffered_bytes();
        match message.tag {
            b'Q' => ahead > 0,
            b'B' => ahead > LONE_BYTES,
            b'P' => ahead > LONE_BYTES && self.is_behind_parse(),
            _ => false,
        }
    }

    /// True when something follows the messages that belong to a Parse.
    fn is_behind_parse(&self) -> bool {
        let mut frames = Frames {
            taken: None,
            input: self.client.input(),
            at: 0,
        };
        let bound = matches!(frames.next(), Some((b'B', _)));
        bound && frames.execution().is_some() && frames.at < frames.input.len()
    }

    /// The unit that begins with `taken`, or else with the next message; `None` where it is not all here, or is none.
    pub(super) fn unit(&self, taken: Option<&Message>) -> Option<Unit> {
        let input = self.client.input();
        let mut frames = Frames {
            taken,
            input,
            at: 0,
        };
        let unit = match frames.next()? {
            (b'Q', body) => self.query_unit(body)?,
            (b'B', body) => self.bind_unit(body, None, &mut frames)?,
            (b'P', body) => {
                let parsed = self.parsed(body)?;
                let (b'B', body) = frames.next()? else {
                    return None;
                };
                self.bind_unit(body, Some(parsed), &mut frames)?
            }
            _ => return None,
        };
        is_independent(&unit.call.prepared).then_some(Unit {
            bytes: frames.at,
            ..unit
        })
    }

    fn bind_unit(
        &self,
        body: &[u8],
        parsed: Option<Arc<Prepared>>,
        frames: &mut Frames<'_>,
    ) -> Option<Unit> {
        let describes = frames.execution()?;
        let body = Bytes::copy_from_slice(body);
        Some(Unit {
            call: self.call_of_bind(&body, parsed.as_ref())?,
            confirms: true,
            describes,
            parsed,
            bytes: 0,
        })
    }

    /// What an unnamed Parse of a statement that has been met before yields.
    fn parsed(&self, body: &[u8]) -> Option<Arc<Prepared>> {
        let (name, sql, types) = read_parse(body)?;
        let key = CacheKey {
            types,
            ..self.cache_key(sql)
        };
        self.cached(&key).filter(|_| name.is_empty())
    }

    fn query_unit(&self, body: &[u8]) -> Option<Unit> {
        let text = std::str::from_utf8(body.strip_suffix(&[0])?).ok()?;
        let bare = text.trim().trim_end_matches(';').trim_end();
        // Positions in errors are those of the client's text.
        if text.contains('\0') || !text.starts_with(bare) {
            return None;
        }
        let (call, describes) = match self.cached(&self.cache_key(bare)) {
            Some(prepared) => (self.call_of_query(&prepared)?, true),
            None => {
                let shape = self.shape_of(bare)?;
                let prepared = self.cached(&self.cache_key(&shape.text))?;
                let text = Cow::Owned(text.to_owned());
                let prepared = prepared.is_plain.then_some(prepared)?;
                (self.call_of_shape(text, prepared, shape.values)?, false)
            }
        };
        Some(Unit {
            call,
            confirms: false,
            describes,
            parsed: None,
            bytes: 0,
        })
    }
}

/// True for a SELECT that no other one of the session has to wait for: it leaves nothing behind, takes no locks, and only the rows it
/// reads decide what it returns.
fn is_independent(prepared: &Prepared) -> bool {
    let planned = prepared.planned.as_ref();
    matches!(prepared.kind, Kind::Select { locks: false, .. })
        && planned.is_some_and(|p| p.leaves_nothing && !p.in_turn)
}
