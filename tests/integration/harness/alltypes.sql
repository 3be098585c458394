-- A table with a column of every type, NULLs in every one of them. Values come from the row's number alone, so that every
-- node makes the same rows.
create table alltypes (
  id int8 primary key, grp int4, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, num numeric, num2 numeric(12,3), numx numeric,
  t text, vc varchar(40), ch char(8), coll text, tc text collate "C", qc "char", bin bytea, b bool,
  d date, dx date, tm time, tmtz timetz, ts timestamp, tstz timestamptz, tstzx timestamptz, iv interval,
  u uuid, js json, jsb jsonb, ip inet, net cidr, mac macaddr, mac8 macaddr8,
  ia int4[], ia2 int8[], ta text[], na numeric[], da date[], ma mood[],
  i4r int4range, nr numrange, dr daterange, tsr tstzrange, fr frange, i4mr int4multirange,
  mo mood, comp pair, pos posint, mail email, b8 bit(8), vb varbit(16), cash money,
  pt point, bx box, pl polygon, ci circle, tsv tsvector, tsq tsquery, o oid, nm name, lsn pg_lsn, x8 xid8, jp jsonpath,
  allnull text);
alter table alltypes alter grp set not null, alter coll set not null;

insert into alltypes
select i, i % 7,
  (i * 131 % 65536 - 32768)::int2, ((i * 2654435761) % 4294967296 - 2147483648)::int4,
  case i % 3 when 0 then -9223372036854775808 + i when 1 then 9223372036854775807 - i else i - 100 end,
  (array['NaN', 'Infinity', '-Infinity', '-0', '0.5', '1e-20'])[1 + i % 6]::float4,
  case when i % 4 = 0 then (array['NaN', 'Infinity', '-Infinity', '0', '-0'])[1 + i % 5]::float8 else (i % 50 - 25) * 0.25 end,
  (array['1', '1.0', '1.00', '-0.5', '0', '0.000', '123456789012345678901234567890.123456789', '1e-30'])[1 + i % 8]::numeric,
  (i % 100 - 50) * 1.125, (array['NaN', 'Infinity', '-Infinity', '2.50', '2.5'])[1 + i % 5]::numeric,
  (array['', ' ', 'NULL', 'null', E'tab\there', E'nl\nx', 'q"q', 's''s', E'back\\slash', '{a,b}', '日本語', '😀', repeat('x', 300)])[1 + i % 13],
  'vc' || i % 23, (array['a', 'ab ', 'abc', 'ABC', 'é', '', 'zzzzzzzz', 'Ab c'])[1 + i % 8], w.coll, w.coll, (array['a', 'b', 'Z', ' '])[1 + i % 4]::"char",
  decode(substr(md5(i::text), 1, (i % 6) * 2), 'hex'), i % 3 = 0,
  date '2000-01-01' + (i * 37 % 9000), (array['infinity', '-infinity', '0044-03-15 BC', '9999-12-31', '2020-02-29'])[1 + i % 5]::date,
  time '00:00' + (i * 977 % 86400) * interval '1 s', ((array['10:00:00+00', '10:00:00+05:30', '04:30:00-05:30', '23:59:59.5-03'])[1 + i % 4])::timetz,
  timestamp '2020-01-01' + (i * 7919 % 100000) * interval '1 minute', timestamptz '2020-01-01 00:00+00' + (i * 7919 % 100000) * interval '1 minute',
  (array['infinity', '-infinity', '2020-01-01 00:00+00', '4713-01-01 00:00:00 BC'])[1 + i % 4]::timestamptz,
  (array['1 mon', '30 days', '720:00:00', '0', '1 day', '24:00:00', '-1 mon 1 day', '1 year 2 mons'])[1 + i % 8]::interval,
  md5(i::text)::uuid, (array['1', '1.0', '{"b": 1, "a": [1, {"c": null}]}', '"x"', 'null'])[1 + i % 5]::json,
  (array['1', '1.0', '{"b": 1, "a": [1, {"c": null}]}', '"x"', 'null', '[]', '{}'])[1 + i % 7]::jsonb,
  (array['10.0.0.1', '10.0.0.1/24', '::1', '2001:db8::5', '9.255.0.0'])[1 + i % 5]::inet, (array['10.1.0.0/16', '192.168.0.0/24', '2001:db8::/32'])[1 + i % 3]::cidr,
  substr(md5(i::text), 1, 12)::macaddr, substr(md5(i::text), 1, 16)::macaddr8,
  (array['{}', '{1,2,3}', '{1,NULL}', '{NULL}', '{3}'])[1 + i % 5]::int4[], (array['{{1,2},{3,4}}', '{{1,NULL},{0,9}}', '{}', '[0:1]={7,8}'])[1 + i % 4]::int8[],
  array[w.coll, null, 'a', 'NULL', ''], array[(i % 5)::numeric, 1.0, 1.00, null], array[date 'infinity', date '2020-01-01' + i], array[(array['sad', 'ok', 'happy', 'ecstatic'])[1 + i % 4]::mood, null],
  (array['[1,5)', 'empty', '(,3]', '[2,)', '[1,1]'])[1 + i % 5]::int4range, numrange(i % 9, i % 9 + 1.5), daterange('2020-01-01', date '2020-01-02' + i % 40),
  tstzrange('2021-01-01 10:00+00', timestamptz '2021-01-02 11:30+00' + i % 10 * interval '1 day'), frange((i % 10) * -1.5, (i % 10) * 2.25), (array['{}', '{[1,3),[5,9)}', '{(,0),[10,)}'])[1 + i % 3]::int4multirange,
  (array['sad', 'ok', 'happy', 'ecstatic'])[1 + i % 4]::mood, row(i % 5, (array['x', '', 'a,b', null])[1 + i % 4])::pair, 1 + i % 9, 'u' || i % 12 || '@example.com',
  (i % 256)::int4::bit(8), (array['', '1', '0101', '1111000011110000'])[1 + i % 4]::varbit, (i % 40 - 20) * 1.25::numeric::money,
  point(i % 10, -i % 7), box(point(0, 0), point(i % 4, 2)), '((0,0),(1,2),(3,4))', circle(point(i % 3, 0), 1 + i % 4),
  (array['''cat'':1 ''dog'':2A', '''rat'':3', ''])[1 + i % 3]::tsvector, (array['''cat'' & ''dog''', '''rat'' | !''fox'''])[1 + i % 2]::tsquery,
  (i * 65537 % 4294967296)::oid, (array['pg_class', 'name', 'Abc', 'zeta'])[1 + i % 4], ('0/' || to_hex(i * 4096))::pg_lsn, (i * 100003)::text::xid8, (array['$.a', '$."b"[*]'])[1 + i % 2]::jsonpath, null
from generate_series(1, 300) i
cross join lateral (select (array[
  'apple', 'Apple', 'APPLE', 'äpfel', 'Äpfel', 'apfel', 'zebra', 'Zebra', 'éclair', 'Eclair', 'eclair', 'école', 'Ecole', 'co-op', 'coop', 'Coop', 'CO-OP',
  '"quoted"', 'o''neil', 'O''Neil', 'oneil', 'ñandú', 'nandu', 'ß', 'ss', 'SS', 'straße', 'strasse', 'a_b', 'a-b', 'a.b', 'ab', 'AB', '10', '9', '2', '1a', 'a1',
  'résumé', 'resume', 'Resume', 'Ångström', 'angstrom', 'øre', 'ore', '日本', '中文', 'Ω', 'œuvre', 'oeuvre', '_under', '#hash', ' lead', 'trail ', 'a b', 'a  b'])[1 + i * 13 % 56] as coll) w;

-- A NULL in every column but the first two and coll, in rows that differ by column.
do $$
declare c record;
begin
  for c in select attname, attnum from pg_attribute
    where attrelid = 'alltypes'::regclass and attnum > 2 and not attnotnull order by attnum
  loop
    execute format('update alltypes set %I = null where (id * 7 + %s) %% 13 = 0', c.attname, c.attnum);
  end loop;
end $$;
