//! Type OIDs inside binary values: arrays and composites name the types of their parts, and user-defined types have other
//! OIDs on every shard. In rows they are rewritten to those of the catalog shard, which the client knows; in parameters
//! from these to the shard's. Lengths never change. Ranges and multiranges name no types themselves, but their bounds may.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::{Bound, Parameters, row};
use crate::backend::raw_conn::Run;
use crate::catalog::Catalog;
use crate::plan::ShardId;
use crate::protocol::messages::ColumnDescription;
use crate::types::oid;

/// Composites may hold composites; deeper ones than this are taken for an attack.
const DEPTH_MAX: usize = 64;

/// Rewrites the OIDs between one shard and the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Translation<'a> {
    catalog: &'a Catalog,
    /// That shard's OIDs of user-defined types, and the catalog shard's.
    types: &'a HashMap<u32, u32>,
    towards: Towards,
}

/// Where values are on their way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Towards {
    Client,
    Shard,
}

/// How a value names types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Nothing,
    /// Its element type, once.
    Array,
    /// The type of each field.
    Fields,
    /// Only in its bounds, which are of this type.
    Bounds(u32),
    /// Only in its ranges, which are of this type.
    Ranges(u32),
}

impl<'a> Translation<'a> {
    /// Of a shard's rows. `None` when the shard numbers its types as the catalog shard does.
    pub(super) fn of(catalog: Option<&'a Catalog>, shard: ShardId) -> Option<Self> {
        let catalog = catalog?;
        let types = catalog.type_oids.get(shard.0 as usize)?;
        (!types.is_empty()).then_some(Self {
            catalog,
            types,
            towards: Towards::Client,
        })
    }

    /// Of parameters on their way to a shard. `None` when it would change nothing.
    pub(super) fn of_parameters(
        catalog: Option<&'a Catalog>,
        shard: ShardId,
        parameter_types: &[u32],
    ) -> Option<Self> {
        let is_ours = |type_oid: &u32| *type_oid >= oid::FIRST_NORMAL_OBJECT;
        parameter_types.iter().any(is_ours).then_some(())?;
        Some(Self {
            towards: Towards::Shard,
            ..Self::of(catalog, shard)?
        })
    }

    /// The shard's OIDs of types that the catalog shard numbers so.
    pub(super) fn there(self, types: &[u32]) -> Vec<u32> {
        types.iter().map(|t| self.there_of(*t)).collect()
    }

    fn there_of(self, type_oid: u32) -> u32 {
        let same = |(_, here): &(&u32, &u32)| **here == type_oid;
        let found = self.types.iter().find(same);
        found.map_or(type_oid, |(there, _)| *there)
    }

    /// Parameters as the shard reads them; malformed values stay as they are, for the shard to refuse.
    pub(super) fn parameters(self, parameters: &Parameters) -> Parameters {
        let mut translated = parameters.clone();
        let types = parameters.types.iter().zip(&parameters.formats);
        for (value, (type_oid, format)) in translated.values.iter_mut().zip(types) {
            let Some(bytes) = value else { continue };
            if *format == 1 && self.names(*type_oid) != Names::Nothing {
                let mut there = BytesMut::from(&bytes[..]);
                if self.value(&mut there, *type_oid, 0).is_some() {
                    *bytes = there.freeze();
                }
            }
        }
        translated
    }

    /// True when a column's values may name types of users.
    pub(super) fn concerns(self, column: &ColumnDescription) -> bool {
        column.format == 1 && self.names(column.type_oid) != Names::Nothing
    }

    fn names(self, type_oid: u32) -> Names {
        match type_oid {
            oid::RECORD => Names::Fields,
            oid::RECORD_ARRAY => Names::Array,
            _ if type_oid < oid::FIRST_NORMAL_OBJECT => Names::Nothing,
            _ => match self.catalog.types.get(&type_oid) {
                Some(t) if t.kind == b'c' => Names::Fields,
                Some(t) if t.kind == b'd' => self.names(t.base),
                Some(t) if matches!(t.kind, b'r' | b'm') => match self.names(t.subtype) {
                    Names::Nothing => Names::Nothing,
                    _ if t.kind == b'r' => Names::Bounds(t.subtype),
                    _ => Names::Ranges(t.subtype),
                },
                Some(t) if t.element != 0 => Names::Array,
                _ => Names::Nothing,
            },
        }
    }

    /// A run with the OIDs of `columns` rewritten; `None` when a value is malformed.
    pub(super) fn run(self, run: Run, columns: &[ColumnDescription]) -> Option<Run> {
        let mut frames = owned(run.frames);
        let mut start = 0;
        for _ in 0..run.rows {
            let end = row::frame_end(&frames, start)?;
            let mut at = start + row::ROW_HEADER_BYTES;
            for column in columns {
                let behind = row::column_end(&frames[..end], at)?;
                let null = frames[at] & 0x80 != 0;
                if !null && self.concerns(column) {
                    self.value(&mut frames[at + 4..behind], column.type_oid, 0)?;
                }
                at = behind;
            }
            start = end;
        }
        Some(Run {
            frames: frames.freeze(),
            rows: run.rows,
        })
    }

    /// Rewrites one value of a type, given as the catalog shard numbers it.
    fn value(self, value: &mut [u8], type_oid: u32, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.names(type_oid) {
            Names::Nothing => Some(()),
            Names::Array => self.array(value, depth),
            Names::Fields => self.fields(value, depth),
            // Flags in a byte, then the bounds there are; or a number, and so many ranges.
            Names::Bounds(subtype) => self.parts(value, 1, subtype, depth),
            Names::Ranges(range) => self.parts(value, 4, range, depth),
        }
    }

    /// Rewrites values of one type that stand one behind the other from `at` to the end.
    fn parts(self, whole: &mut [u8], mut at: usize, type_oid: u32, depth: usize) -> Option<()> {
        while at < whole.len() {
            at = self.part(whole, at, type_oid, depth)?;
        }
        (at == whole.len()).then_some(())
    }

    fn array(self, array: &mut [u8], depth: usize) -> Option<()> {
        let dimensions = usize::try_from(word(array, 0)?).ok()?;
        let element = self.rewrite(array, 8)?;
        let at = 12 + dimensions.checked_mul(8)?;
        match self.names(element) {
            Names::Nothing => Some(()),
            _ => self.parts(array, at, element, depth),
        }
    }

    fn fields(self, composite: &mut [u8], depth: usize) -> Option<()> {
        let mut at = 4;
        for _ in 0..word(composite, 0)? {
            let field = self.rewrite(composite, at)?;
            at = self.part(composite, at + 4, field, depth)?;
        }
        (at == composite.len()).then_some(())
    }

    /// Rewrites the value whose length stands at `at`; returns the place behind it.
    fn part(self, whole: &mut [u8], at: usize, type_oid: u32, depth: usize) -> Option<usize> {
        let behind = row::column_end(whole, at)?;
        if behind > at + 4 {
            self.value(&mut whole[at + 4..behind], type_oid, depth + 1)?;
        }
        Some(behind)
    }

    /// Rewrites the OID at `at` and returns the catalog shard's.
    fn rewrite(self, bytes: &mut [u8], at: usize) -> Option<u32> {
        let before = word(bytes, at)? as u32;
        let (after, ours) = match self.towards {
            Towards::Client => {
                let ours = *self.types.get(&before).unwrap_or(&before);
                (ours, ours)
            }
            Towards::Shard => (self.there_of(before), before),
        };
        bytes[at..at + 4].copy_from_slice(&after.to_be_bytes());
        Some(ours)
    }
}

/// The bytes to write into: the very ones where nobody else holds them, else a copy.
fn owned(frames: Bytes) -> BytesMut {
    frames
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Bound {
    /// A type OID of a shard as the catalog shard numbers it.
    pub(super) fn type_of(&self, shard: ShardId, type_oid: u32) -> u32 {
        if type_oid < oid::FIRST_NORMAL_OBJECT {
            return type_oid;
        }
        let shards = self.catalog.as_ref().map(|c| &c.type_oids);
        let there = shards.and_then(|types| types.get(shard.0 as usize));
        let mapped = there.and_then(|types| types.get(&type_oid));
        mapped.copied().unwrap_or(type_oid)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::row::testing::{rows, run};
    use super::*;
    use crate::catalog::Type;

    fn user_type(type_oid: u32, kind: u8, part: u32) -> (u32, Arc<Type>) {
        let made = Type {
            oid: type_oid,
            schema: "public".into(),
            name: "t".into(),
            kind,
            element: match kind {
                b'b' => part,
                _ => 0,
            },
            array: 0,
            base: 0,
            subtype: match kind {
                b'r' | b'm' => part,
                _ => 0,
            },
            apart: false,
            labels: vec![],
            fields: vec![],
            collatable: false,
        };
        (type_oid, Arc::new(made))
    }

    /// On the catalog shard: 20001 an enum, 20002 its array, 20003 a composite, 20004 its array, 20005 a range of it, 20006 the
    /// multirange, 20007 a range of the enum. On shard 1: 1000 more each.
    fn catalog() -> Catalog {
        Catalog {
            types: [
                user_type(20_001, b'e', 0),
                user_type(20_002, b'b', 20_001),
                user_type(20_003, b'c', 0),
                user_type(20_004, b'b', 20_003),
                user_type(20_005, b'r', 20_003),
                user_type(20_006, b'm', 20_005),
                user_type(20_007, b'r', 20_001),
            ]
            .into(),
            type_oids: vec![
                HashMap::new(),
                (20_001..=20_007).map(|oid| (oid + 1000, oid)).collect(),
            ],
            ..Catalog::default()
        }
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    /// A composite of an int4 and an array of two enum values, one of them NULL.
    fn composite(enum_array: u32, element: u32) -> Vec<u8> {
        let array = [
            &words(&[1, 1, element, 2, 1, 2])[..],
            b"ok",
            &words(&[u32::MAX]),
        ]
        .concat();
        let head = words(&[2, oid::INT4, 4, 7, enum_array, array.len() as u32]);
        [head, array].concat()
    }

    fn column(type_oid: u32, format: i16) -> ColumnDescription {
        ColumnDescription {
            name: Bytes::new(),
            table_oid: 0,
            attribute: 0,
            type_oid,
            type_length: -1,
            type_modifier: -1,
            format,
        }
    }

    fn translated(value: &[u8], type_oid: u32) -> Option<Vec<u8>> {
        let catalog = catalog();
        let translation = Translation::of(Some(&catalog), ShardId(1)).unwrap();
        let columns = [column(oid::TEXT, 1), column(type_oid, 1)];
        let run = run(&[&[None, Some(value)], &[Some(b"x"), None]]);
        let run = translation.run(run, &columns)?;
        rows(&run)[0][1].clone()
    }

    #[test]
    fn nested_parts_are_rewritten() {
        let expected = composite(20_002, 20_001);
        assert_eq!(
            translated(&composite(21_002, 21_001), 20_003),
            Some(expected.clone())
        );
        assert_eq!(
            translated(&composite(21_002, 21_001), oid::RECORD),
            Some(expected.clone())
        );
        let array = |element, value: &[u8]| {
            let head = words(&[1, 0, element, 1, 1, value.len() as u32]);
            [&head[..], value].concat()
        };
        assert_eq!(
            translated(&array(21_003, &composite(21_002, 21_001)), 20_004),
            Some(array(20_003, &expected))
        );
    }

    #[test]
    fn the_bounds_of_ranges_are_rewritten() {
        let (there, here) = (composite(21_002, 21_001), composite(20_002, 20_001));
        let bound = |value: &[u8]| [&words(&[value.len() as u32])[..], value].concat();
        // One bound, two, none; and all of them as a multirange.
        let range =
            |flags: u8, value: &[u8], bounds| [vec![flags], bound(value).repeat(bounds)].concat();
        let ranges = |value: &[u8]| {
            [
                range(0x08, value, 1),
                range(0x02, value, 2),
                range(0x01, value, 0),
            ]
        };
        for (there, here) in ranges(&there).into_iter().zip(ranges(&here)) {
            assert_eq!(translated(&there, 20_005), Some(here));
        }
        let multirange = |value: &[u8]| {
            let parts = ranges(value).into_iter().flat_map(|range| bound(&range));
            words(&[3]).into_iter().chain(parts).collect::<Vec<_>>()
        };
        assert_eq!(
            translated(&multirange(&there), 20_006),
            Some(multirange(&here))
        );
        let cut = &multirange(&there)[..40];
        assert_eq!(translated(cut, 20_006), None);
        // Bounds that name nothing are not looked at.
        assert_eq!(translated(&[9], 20_007), Some(vec![9]));
    }

    #[test]
    fn parameters_get_the_shards_oids() {
        let catalog = catalog();
        let array = |element| Bytes::from(words(&[0, 0, element]));
        let parameters = Parameters {
            types: [20_002, 20_003, 20_002, 20_002, oid::INT8].into(),
            formats: vec![1, 1, 0, 1, 1],
            values: vec![
                Some(array(20_001)),
                Some(composite(20_002, 20_001).into()),
                Some(array(20_001)),
                Some(Bytes::from_static(b"bad")),
                None,
            ],
        };
        let of = |shard| Translation::of_parameters(Some(&catalog), shard, &parameters.types);
        let translation = of(ShardId(1)).unwrap();
        assert_eq!(
            translation.there(&parameters.types),
            [21_002, 21_003, 21_002, 21_002, oid::INT8]
        );
        let expected = [
            Some(array(21_001)),
            Some(composite(21_002, 21_001).into()),
            Some(array(20_001)),
            Some(Bytes::from_static(b"bad")),
            None,
        ];
        assert_eq!(translation.parameters(&parameters).values, expected);
        assert!(of(ShardId(0)).is_none());
        assert!(Translation::of_parameters(Some(&catalog), ShardId(1), &[oid::INT8]).is_none());
    }

    #[test]
    fn what_names_no_types_is_left_alone() {
        let catalog = catalog();
        let translation = Translation::of(Some(&catalog), ShardId(1)).unwrap();
        assert!(!translation.concerns(&column(oid::INT8_ARRAY, 1)));
        assert!(!translation.concerns(&column(20_001, 1)));
        assert!(!translation.concerns(&column(20_002, 0)));
        assert!(translation.concerns(&column(20_002, 1)));
        assert!(Translation::of(Some(&catalog), ShardId(0)).is_none());
        let text = 21_001_u32.to_be_bytes();
        assert_eq!(translated(&text, oid::TEXT).as_deref(), Some(&text[..]));
    }

    #[test]
    fn malformed_values_are_refused() {
        let whole = composite(21_002, 21_001);
        for length in 0..whole.len() {
            assert_eq!(translated(&whole[..length], 20_003), None, "{length}");
        }
    }
}
