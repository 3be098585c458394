with flows as (
  select t.payer,
         p.sector,
         date_trunc('quarter', t.month)::date as quarter,
         sum(t.amount) as paid,
         sum(t.transactions) as transactions,
         count(distinct t.beneficiary) as partners,
         sum(case when b.country = p.country then t.amount else 0 end) as domestic,
         sum(case when b.sector = p.sector then t.amount else 0 end) as own_sector,
         avg(t.amount) filter (where t.transactions > 5) as busy_average
  from transfers t
  join companies p on p.id = t.payer
  join companies b on b.id = t.beneficiary
  where t.month >= date '2021-04-01'
    and t.month < date '2023-10-01'
    and t.amount > 20
    and t.transactions between 2 and 39
    and p.country in ('BR', 'AR', 'CL')
    and p.sector <> 'finance'
    and p.founded < date '2015-01-01'
    and b.country in ('BR', 'AR', 'UY', 'PT')
    and b.sector is not null
  group by t.payer, p.sector, date_trunc('quarter', t.month)
  having sum(t.amount) > 1000
     and count(*) >= 3
     and sum(t.transactions) > 20
)
select payer, sector, quarter, paid, transactions, partners,
       case when domestic > paid / 2 then 'domestic' else 'foreign' end as kind,
       case when own_sector = 0 then 'none' when own_sector < paid / 4 then 'some' else 'much' end as in_own_sector,
       round(busy_average, 2) as busy_average,
       round(100 * paid / sum(paid) over (partition by payer), 1) as percent_of_payer,
       paid - lag(paid) over (partition by payer order by quarter) as change,
       rank() over (partition by payer order by paid desc, quarter) as rank_of_quarter
from flows
order by paid desc, payer, quarter
limit 200
