-- name: partition by the key
select id, user_id, row_number() over (partition by user_id order by at, id) from events

-- name: partition by the key and another
select id, count(*) over (partition by user_id, kind) from events

-- name: partition by the key with frames
select id, sum(amount) over (partition by user_id order by at, id rows between 1 preceding and current row) from events

-- name: two windows by the key
select id, rank() over w, lag(amount) over w, last_value(id) over (partition by user_id order by id rows between unbounded preceding and unbounded following) from events window w as (partition by user_id order by amount nulls last, id)

-- name: window by the key, ordered and limited
select id, user_id, row_number() over (partition by user_id order by id) as n from events order by n desc, id limit 10

-- name: filtered row numbers by the key
select user_id, id from (select user_id, id, row_number() over (partition by user_id order by amount desc nulls last, id) as n from events) s where n <= 2

-- name: window over an aggregate by the key
select user_id, count(*), rank() over (partition by user_id order by count(*)) from events group by user_id

-- name: partition by another column
-- expect: same-or-refused
select id, row_number() over (partition by country order by id) from users

-- name: partition by an expression of the key
-- expect: same-or-refused
select id, count(*) over (partition by id % 3) from users

-- name: one window by the key, one not
-- expect: same-or-refused
select id, count(*) over (partition by user_id), count(*) over (partition by kind) from events

-- name: over everything
-- expect: same-or-refused
select id, count(*) over () from users

-- name: running total over everything
-- expect: same-or-refused
select id, sum(id) over (order by id) from users

-- name: rank of groups
-- expect: same-or-refused
select country, count(*), rank() over (order by count(*) desc, country) from users group by country

-- name: share of the total
-- expect: same-or-refused
select country, sum(id), round(100 * sum(id) / sum(sum(id)) over (), 3) from users group by country

-- name: window over a reference table
select id, row_number() over (order by id) from tags

-- name: window over a nullable key
-- note: NULLs live on one shard, so they are one partition there
select n, count(*) over (partition by user_id) from visits

-- name: window in order by
-- expect: same-or-refused
select id from users order by row_number() over (order by id desc)

-- name: window in distinct
-- expect: same-or-refused
select distinct count(*) over () from users

-- name: window over a limited subquery
-- expect: same-or-refused
select id, row_number() over (order by id) from (select id from users order by id limit 5) s

-- name: window over an empty table
select id, row_number() over (partition by id order by v) from empty_s

-- name: window by the key of a join
select u.id, e.id as e, sum(e.amount) over (partition by u.id order by e.id) from users u join events e on e.user_id = u.id
