//! OIDs of built-in types, fixed by PostgreSQL's `pg_type.dat`: the same on every server.
#![allow(missing_docs)] // The names are PostgreSQL's own.

pub const BOOL: u32 = 16;
pub const BYTEA: u32 = 17;
pub const CHAR: u32 = 18;
pub const NAME: u32 = 19;
pub const INT8: u32 = 20;
pub const INT2: u32 = 21;
pub const INT4: u32 = 23;
pub const TEXT: u32 = 25;
pub const OID: u32 = 26;
pub const JSON: u32 = 114;
pub const PG_NODE_TREE: u32 = 194;
pub const POINT: u32 = 600;
pub const CIDR: u32 = 650;
pub const FLOAT4: u32 = 700;
pub const FLOAT8: u32 = 701;
pub const UNKNOWN: u32 = 705;
pub const MACADDR8: u32 = 774;
pub const MONEY: u32 = 790;
pub const MACADDR: u32 = 829;
pub const INET: u32 = 869;
pub const ACLITEM: u32 = 1033;
pub const ACLITEM_ARRAY: u32 = 1034;
pub const BPCHAR: u32 = 1042;
pub const VARCHAR: u32 = 1043;
pub const DATE: u32 = 1082;
pub const TIME: u32 = 1083;
pub const TIMESTAMP: u32 = 1114;
pub const TIMESTAMPTZ: u32 = 1184;
pub const INTERVAL: u32 = 1186;
pub const TIMETZ: u32 = 1266;
pub const BIT: u32 = 1560;
pub const VARBIT: u32 = 1562;
pub const NUMERIC: u32 = 1700;
pub const RECORD: u32 = 2249;
pub const UUID: u32 = 2950;
pub const PG_LSN: u32 = 3220;
pub const PG_NDISTINCT: u32 = 3361;
pub const PG_DEPENDENCIES: u32 = 3402;
pub const JSONB: u32 = 3802;
pub const PG_MCV_LIST: u32 = 5017;
pub const RECORD_ARRAY: u32 = 2287;
pub const XID8: u32 = 5069;

pub const BYTEA_ARRAY: u32 = 1001;
pub const INT2_ARRAY: u32 = 1005;
pub const INT4_ARRAY: u32 = 1007;
pub const TEXT_ARRAY: u32 = 1009;
pub const BPCHAR_ARRAY: u32 = 1014;
pub const VARCHAR_ARRAY: u32 = 1015;
pub const INT8_ARRAY: u32 = 1016;
pub const DATE_ARRAY: u32 = 1182;
pub const UUID_ARRAY: u32 = 2951;

/// The first OID a server may give to an object that a user makes; below it, OIDs are the same on every server of a version.
pub const FIRST_NORMAL_OBJECT: u32 = 16384;

/// regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig, regdictionary, regnamespace, regrole, regcollation:
/// their binary form is the OID of an object, their text its name.
pub const REG_TYPES: [u32; 11] = [
    24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,
];
/// Arrays of them, in the same order.
pub const REG_ARRAYS: [u32; 11] = [
    1008, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192,
];
