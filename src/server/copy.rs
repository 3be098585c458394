//! COPY FROM STDIN through to the one shard: the client's data goes on as it comes.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::prepare::CATALOG_SHARD;
use super::prepared::Prepared;
use super::session::{Ended, Session};
use crate::executor::{Execution, Parameters, backend_error};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

/// Data waits for the shard's socket beyond this.
const BUFFER_BYTES: usize = 64 << 10;

impl Session {
    /// A COPY FROM STDIN as a simple Query: the shard then knows by itself when it is over.
    pub fn open_copy_in(&mut self, prepared: &Prepared) -> Result<Execution, ServerError> {
        self.tie(prepared);
        self.claim_home(prepared)?;
        let bound = self.bound(Arc::new(Parameters::default()), Arc::from([]), 0, true)?;
        Ok(Execution::passthrough(
            CATALOG_SHARD,
            prepared.sql.clone(),
            bound,
        ))
    }

    /// Reads CopyData up to CopyDone or CopyFail and hands all of it to the shard. What the shard says about it comes with
    /// the execution's next items.
    ///
    /// # Errors
    /// A message that has no place in a COPY; a lost shard or client.
    pub async fn copy_in(&mut self, _execution: &mut Execution) -> Result<(), Ended> {
        self.client.flush().await.map_err(|_| Ended::Session)?;
        loop {
            let message = self.client.message().await.map_err(|_| Ended::Session)?;
            let done = match message.tag {
                b'd' => false,
                b'c' | b'f' => true,
                b'H' | b'S' => continue,
                tag => {
                    let text =
                        format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                    self.recover().await;
                    return Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, text).into());
                }
            };
            let Some(conn) = self.connections.get(CATALOG_SHARD) else {
                return Err(ServerError::new(
                    sqlstate::CONNECTION_FAILURE,
                    "the shard's connection is gone",
                )
                .into());
            };
            put_frame(message.tag, &message.body, conn.write_buffer());
            if done || conn.write_buffer().len() > BUFFER_BYTES {
                poll_fn(|cx| conn.poll_flush(cx))
                    .await
                    .map_err(backend_error)?;
            }
            if done {
                return Ok(());
            }
        }
    }
}

fn put_frame(tag: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u8(tag);
    out.put_u32(body.len() as u32 + 4);
    out.put_slice(body);
}
