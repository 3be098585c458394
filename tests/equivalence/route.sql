-- name: key equals constant
select * from users where id = 17

-- name: constant on the left
select id, name from users where 17 = id

-- name: no such key
select * from users where id = 999999

-- name: negative key
select * from small_keys where k = -7

-- name: int4 key with a bigint constant beyond int4
select * from small_keys where k = 3000000000

-- name: int8 key with an int2 constant
select id from users where id = 3::int2

-- name: key is an untyped string
select id from users where id = '17'

-- name: key is an untyped string with blanks
select id from users where id = ' 17 '

-- name: key is a bad string
-- expect: 22P02
select id from users where id = 'seventeen'

-- name: key is out of range
-- expect: 22003
select id from users where id = '99999999999999999999'

-- name: numeric constant does not pin
-- note: 42.0 is numeric: the comparison is not the key's own operator
select id from users where id = 42.0

-- name: numeric constant that no integer equals
select id from users where id = 42.5

-- name: float constant does not pin
select id from users where id = 42::float8

-- name: key cast to text
select id from users where id::text = '42'

-- name: key cast to numeric
select id from users where id::numeric = 42

-- name: expression of constants
select id from users where id = 40 + 2

-- name: negated literal
select k from small_keys where k = - 5

-- name: expression over the key
select id from users where id + 1 = 43

-- name: two keys by IN
select id, name from users where id in (3, 4, 5, 250)

-- name: IN with one
select id from users where id in (12)

-- name: IN with a NULL
select id from users where id in (12, null)

-- name: IN with only NULL
select id from users where id in (null)

-- name: NOT IN constants
select count(*) from users where id not in (1, 2, 3)

-- name: NOT IN with a NULL
select count(*) from users where id not in (1, null)

-- name: IN mixed integers and numeric
select id from users where id in (1, 2.0, 3)

-- name: any of an array constant
select id from users where id = any ('{5,6,7}')

-- name: any of an array with NULL
select id from users where id = any (array[5, null, 7]::int8[])

-- name: any of an empty array
select id from users where id = any ('{}')

-- name: all of an array
select id from users where id = all ('{5,5}')

-- name: not equal any is not equality
select count(*) from users where id <> any ('{5}')

-- name: or of two keys
select id from users where id = 5 or id = 9

-- name: or with another condition
select id from users where id = 5 or name like 'bob%'

-- name: key or true
select count(*) from users where id = 5 or true

-- name: key and contradiction
select id from users where id = 5 and id = 6

-- name: aggregate over a contradiction
-- note: one row, from one shard
select count(*), sum(id) from users where id = 5 and id = 6

-- name: aggregate over an impossible key
select count(*), max(name) from users where id = null

-- name: group by over an impossible key
select country, count(*) from users where id in (null) group by country

-- name: not equal
select count(*) from users where id <> 5

-- name: negation of the key
select count(*) from users where not (id = 5)

-- name: key is null in a table without NULL keys
select * from users where id is null

-- name: key is null in a table with NULL keys
select * from visits where user_id is null

-- name: key is not null
select count(*) from visits where user_id is not null

-- name: key is null or a value
select * from visits where user_id is null or user_id = 12

-- name: key is not distinct from a value
select count(*) from visits where user_id is not distinct from 12

-- name: key is not distinct from NULL
select count(*) from visits where user_id is not distinct from null

-- name: key equals NULL never holds
select count(*) from visits where user_id = null

-- name: key in a case
select id from users where case when id = 5 then true else id = 6 end

-- name: key in coalesce
select count(*) from visits where coalesce(user_id, 12) = 12

-- name: key between
select id from users where id between 10 and 13

-- name: key through equality with another column
select id from users where id = manager_id

-- name: text key
select * from by_text where k = 'key17'

-- name: text key with quote
select * from by_text where k = 'x''y'

-- name: empty text key
select * from by_text where k = ''

-- name: text key is not trimmed
select * from by_text where k = 'a '

-- name: text key of several bytes a character
select * from by_text where k in ('日本', '😀', 'á')

-- name: text key as escape string
select * from by_text where k = E'\u00e1'

-- name: text key as unicode string
select * from by_text where k = U&'\00e1'

-- name: text key in dollar quotes
select * from by_text where k = $$key5$$

-- name: text key compared as char
-- note: char compares without trailing blanks, so 'a ' and 'a' are both found
select * from by_text where k::char(5) = 'a'

-- name: text key with varchar constant
select * from by_text where k = 'key9'::varchar

-- name: text key with explicit collation
select * from by_text where k = 'key9' collate "C"

-- name: text key like without wildcard
select * from by_text where k like 'key9'

-- name: text key case insensitive
select * from by_text where lower(k) = 'a'

-- name: uuid key
select * from by_uuid where k = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b'

-- name: uuid key in braces and capitals
select * from by_uuid where k = '{C4CA4238A0B923820DCC509A6F75849B}'

-- name: uuid key as text
select n from by_uuid where k::text = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b'

-- name: date key
select * from by_date where k = '2024-01-15'

-- name: date key in words
select * from by_date where k = 'January 15, 2024'

-- name: typed date key
select * from by_date where k = date '2024-01-16'

-- name: date key infinity
select * from by_date where k in ('infinity', '-infinity')

-- name: date key before Christ
select * from by_date where k = '0044-03-15 BC'

-- name: date key compared with a timestamp
select * from by_date where k = timestamp '2024-01-15 00:00'

-- name: date key compared with a later time of the day
select * from by_date where k = timestamp '2024-01-15 12:00'

-- name: date key today does not matter
select count(*) from by_date where k = current_date

-- name: int8 parameter
-- params: [["int8", "17"]]
select * from users where id = $1

-- name: int4 parameter against an int8 key
-- params: [["int4", "17"]]
select * from users where id = $1

-- name: int8 parameter against an int4 key
-- params: [["int8", "17"]]
select * from small_keys where k = $1

-- name: parameter of unknown type
-- params: [["?", "17"]]
select id, name from users where id = $1

-- name: NULL parameter
-- params: [["int8", null]]
select id from users where id = $1

-- name: NULL parameter under an aggregate
-- params: [["int8", null]]
select count(*) from users where id = $1

-- name: text parameter
-- params: [["text", "key17"]]
select * from by_text where k = $1

-- name: uuid parameter
-- params: [["uuid", "c4ca4238-a0b9-2382-0dcc-509a6f75849b"]]
select * from by_uuid where k = $1

-- name: date parameter
-- params: [["date", "2024-01-15"]]
select * from by_date where k = $1

-- name: numeric parameter against an int8 key
-- params: [["numeric", "17"]]
select id from users where id = $1

-- name: float parameter at 2 to the 53
-- params: [["float8", "17"]]
select id from users where id = $1

-- name: array parameter
-- params: [["int8[]", "{3,4,NULL,250}"]]
select id, name from users where id = any ($1)

-- name: empty array parameter
-- params: [["int8[]", "{}"]]
select count(*) from users where id = any ($1)

-- name: NULL array parameter
-- params: [["int8[]", null]]
select count(*) from users where id = any ($1)

-- name: text array parameter
-- params: [["text[]", "{a,A,\"a \",NULL}"]]
select k, n from by_text where k = any ($1)

-- name: parameters in an IN list
-- params: [["int8", "3"], ["int8", "250"]]
select id from users where id in ($1, $2)

-- name: parameter with a cast
-- params: [["text", "17"]]
select id from users where id = $1::int8

-- name: parameter in an expression
-- params: [["int8", "16"]]
select id from users where id = $1 + 1

-- name: parameter used twice
-- params: [["int8", "16"]]
select id, $1 as p from users where id = $1

-- name: parameter and key swapped
-- params: [["int8", "16"]]
select id from users where $1 = id

-- name: joined by the key and pinned
select u.id, e.id as event from users u join events e on e.user_id = u.id where u.id = 17

-- name: pinned on the other side of the join
select u.id, e.id as event from users u join events e on e.user_id = u.id where e.user_id = 17

-- name: pinned through three tables
select u.id, e.id as e, o."Id" as o from users u, events e, "Order Items" o where u.id = e.user_id and e.user_id = o."UserId" and o."UserId" = 16

-- name: key in the ON of a left join pins nothing
-- note: ALGEBRA, Pinning: the preserved side stays whole
select count(*), count(e.id) from users u left join events e on e.user_id = u.id and u.id = 2

-- name: key of the nullable side in the ON pins nothing
select count(*), count(e.id) from users u left join events e on e.user_id = u.id and e.user_id = 2

-- name: key of the nullable side in WHERE removes the others
select u.id, e.id as event from users u left join events e on e.user_id = u.id where e.user_id = 2

-- name: nullable side is null
select count(*) from users u left join events e on e.user_id = u.id where e.user_id is null

-- name: pinned preserved side in WHERE
select u.id, e.id as event from users u left join events e on e.user_id = u.id where u.id = 7

-- name: full join with a key condition in ON
select count(*), count(u.id), count(v.user_id) from users u full join visits v on v.user_id = u.id and u.id = 5

-- name: pinned join whose other table is on another key
-- expect: same-or-refused
select u.id, o.id as o from users u join orders o on o.customer_id = u.id where u.id = 17

-- name: both sides pinned to keys of their own
-- expect: same-or-refused
select u.id, o.id as o from users u, orders o where u.id = 17 and o.id = 17

-- name: both sides pinned to different shards
-- expect: same-or-refused
select u.id, o.id as o from users u, orders o where u.id = 1 and o.id in (2, 3, 4)

-- name: int4 and int8 keys are colocated
select s.k, u.id, u.name from small_keys s join users u on u.id = s.k where s.k = 30

-- name: float equality is not the key's
-- note: int8 = float8 compares as floats
-- expect: same-or-refused
select s.k, u.id from small_keys s join users u on u.id = s.f where u.id = 30

-- name: whole statement routed
with t as (select * from events where user_id = 17) select kind, count(*), rank() over (order by count(*) desc, kind) as r from t group by kind order by r

-- name: routed with a subquery
select * from (select id, row_number() over (order by at, id) as n from events where user_id = 17) s where n <= 2

-- name: routed union
select id from users where id = 17 union select user_id from events where user_id = 17

-- name: routed arms on several shards
-- expect: same-or-refused
select id from users where id = 17 union select id from users where id in (18, 19)

-- name: routed string_agg
select string_agg(kind, ',' order by id) from events where user_id = 17

-- name: routed percentile
select percentile_cont(0.5) within group (order by amount) from events where user_id = 17

-- name: quoted identifiers
select "Id", "Product Name" from "Order Items" where "UserId" = 7

-- name: other schema is another table
select * from other.users where id = 3

-- name: qualified table
select id from public.users where id = 3

-- name: qualified column
select public.users.id from public.users where public.users.id = 3

-- name: alias hides the table name
-- expect: 42P01
select users.id from users u where users.id = 3

-- name: alias renames the key
select x from users as u(x) where x = 3

-- name: alias moves the key's name to another column
-- note: "id" is the name column here, and "name" the key
select name from users as u(name, id) where name = 3

-- name: key of a partition
select id from events_2023 where user_id = 17

-- name: only keyword
select id from only users where id = 17

-- name: key cast to a narrower type
select k from small_keys where k::int2 = 5::int2

-- name: row comparison
select id from users where (id, active) = (17, true)

-- name: row IN
select id from users where (id, country) in ((17, 'JP'), (18, 'BR'), (19, 'XX'))

-- name: contradiction without columns
select count(*) from users where false

-- name: boolean constant
select id from users where true and id = 4

-- name: key that equals a sum of constants
select id, name from users where id = 40 + 2

-- name: key that equals computed constants
select id from users where id in (40 + 2, 86 / 2, - (-7), 3::smallint * 3) order by id

-- name: key that equals an overflow
-- expect: 22003
select id from users where id = 2147483647 + 1

-- name: key that equals a division by zero
-- expect: 22012
select id from users where id = 5 / 0

-- name: key that equals constants of other forms
select id from users where id = '42'::text::int8 or id = length('abc') or id = 7.0 or id = 8::numeric order by id

-- name: key that equals an expression over a parameter
-- params: [["int8", "5"]]
select id from users where id = $1 + 1

