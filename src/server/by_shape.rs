//! Texts that differ in their literals only take the short way by one plan, that of their [`sql::Shape`].

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::direct::{Call, Form};
use super::guards::has_clock_words;
use super::prepared::Prepared;
use super::session::{Ended, Session};
use crate::executor::Parameters;
use crate::protocol::error::ServerError;
use crate::sql::{self, Literal, Shape, Strings};
use crate::types::oid;

/// Longer texts are not looked at for their shape.
const SHAPE_BYTES_MAX: usize = 4096;

impl Session {
    /// As [`Session::query_directly`], of a text that has not been met before, though others have that differ in literals only. What
    /// keeps a shard busy is then that text alone, and no other shard is asked what its columns are.
    ///
    /// # Errors
    /// As [`Session::query_directly`].
    pub async fn query_by_shape(&mut self, sql: &str, bare: &str) -> Result<bool, Ended> {
        if !self.takes_short_way() {
            return Ok(false);
        }
        let Some(shape) = self.shape_of(bare) else {
            return Ok(false);
        };
        let Some(prepared) = self.prepared_shape(&shape.text).await else {
            return Ok(false);
        };
        match self.call_of_shape(Cow::Borrowed(sql), prepared, shape.values) {
            Some(call) => self.run_directly(call, false, false).await,
            None => Ok(false),
        }
    }

    /// The shape of a text that is looked at for one.
    pub(super) fn shape_of(&self, bare: &str) -> Option<Shape> {
        let looks = bare.len() <= SHAPE_BYTES_MAX && self.strings() == Strings::Standard;
        looks.then(|| sql::shape(bare))?
    }

    pub(super) fn call_of_shape<'a>(
        &self,
        sql: Cow<'a, str>,
        prepared: Arc<Prepared>,
        values: Vec<Literal>,
    ) -> Option<Call<'a>> {
        let parameters = literal_values(values, &prepared.parameter_types)?;
        Some(Call {
            columns: prepared.columns.clone()?,
            shard: self.direct_target(&prepared, &parameters)?,
            form: Form::Text(sql),
            prepared,
        })
    }

    /// A shape's plan, where it is of use. It is made when a shape is met for the second time.
    async fn prepared_shape(&mut self, shape: &str) -> Option<Arc<Prepared>> {
        let key = self.cache_key(shape);
        if let Some(prepared) = self.cached(&key) {
            return prepared.is_plain.then_some(prepared);
        }
        let hash = foldhash::fast::FixedState::default().hash_one(&key);
        match self.shared.shapes.get(&hash) {
            None => self.shared.shapes.insert(hash, true),
            Some(false) => {}
            Some(true) => {
                let prepared = Box::pin(self.prepare(shape.to_owned(), &[])).await;
                let useful = prepared.map_or_else(|e| passes(&e), |p| p.is_plain);
                self.shared.shapes.insert(hash, useful);
            }
        }
        None
    }
}

/// True for what is no fault of the statement: a lost connection, a full pool, a server that is stopped.
fn passes(error: &ServerError) -> bool {
    let state = error.sqlstate();
    ["08", "53", "57"]
        .iter()
        .any(|class| state.starts_with(class))
}

/// Literals as the parameters that stand for them; `None` where they would not mean the same.
fn literal_values(literals: Vec<Literal>, types: &Arc<[u32]>) -> Option<Parameters> {
    let numbers = [
        oid::INT2,
        oid::INT4,
        oid::INT8,
        oid::NUMERIC,
        oid::FLOAT4,
        oid::FLOAT8,
    ];
    let mut values = Vec::with_capacity(literals.len());
    for (literal, type_oid) in literals.into_iter().zip(types.iter()) {
        let text = match literal {
            // With another type it might be another operator.
            Literal::Integer(_) if !numbers.contains(type_oid) => return None,
            Literal::Integer(text) => text,
            // Words such as 'now' mean something else whenever they are read.
            Literal::String(text) if has_clock_words(&format!("'{text}'")) => return None,
            Literal::String(text) => text,
        };
        values.push(Some(text.into()));
    }
    Some(Parameters {
        types: types.clone(),
        formats: vec![0; values.len()],
        values,
    })
}
