-- name: distinct column
select distinct country from users

-- name: distinct two columns
select distinct country, active from users

-- name: distinct with the key
select distinct id, country from users

-- name: distinct of the key alone
select distinct user_id from events

-- name: distinct of a nullable key
select distinct user_id from visits

-- name: distinct of an expression of the key
select distinct user_id % 10 from events

-- name: distinct text
select distinct v from dupes

-- name: distinct numeric 1.0 and 1.00
-- expect: same-or-refused
-- compare: shape
select distinct w from dupes

-- name: number of distinct numerics
-- expect: same-or-refused
select count(*) from (select distinct w from dupes) s

-- name: distinct float with NaN and minus zero
-- expect: same-or-refused
-- compare: shape
select distinct f from dupes

-- name: distinct interval
-- expect: same-or-refused
-- compare: shape
select distinct iv from alltypes

-- name: distinct char
select distinct ch from alltypes

-- name: distinct enum
select distinct mo from alltypes

-- name: distinct dates with NULL
select distinct d from dupes

-- name: distinct jsonb
-- expect: same-or-refused
-- compare: shape
select distinct jsb from alltypes

-- name: distinct composite
-- expect: same-or-refused
select distinct comp from alltypes

-- name: distinct json is no function
-- expect: 42883
select distinct js from alltypes

-- name: distinct ordered
select distinct country from users order by country

-- name: distinct ordered descending with limit
select distinct kind from events order by kind desc limit 3

-- name: distinct ordered by expression not selected
-- expect: 42P10
select distinct country from users order by id

-- name: distinct with offset
select distinct k from dupes order by k nulls first limit 3 offset 2

-- name: distinct limit without order
-- subset-of: select distinct country from users
select distinct country from users limit 3

-- name: distinct over group by
-- expect: same-or-refused
select distinct count(*) > 10 from events group by user_id

-- name: distinct of a join
select distinct u.country, e.kind from users u join events e on e.user_id = u.id

-- name: distinct of a reference table
select distinct mood from tags

-- name: distinct of constants
select distinct 1, 'x' from users

-- name: distinct over an empty table
select distinct k from empty_s

-- name: distinct on the key
-- expect: same-or-refused
select distinct on (user_id) user_id, id from events order by user_id, at desc, id

-- name: distinct on another column
-- expect: same-or-refused
select distinct on (country) country, id from users order by country, id desc

-- name: distinct on with limit
-- expect: same-or-refused
select distinct on (country) country, id from users order by country, id limit 3

-- name: distinct on a nullable column
-- expect: same-or-refused
select distinct on (k) k, id from dupes order by k nulls first, id

-- name: select all is not distinct
select all country from users
