with paid as (
  select t.payer, t.beneficiary, t.month, t.amount, t.transactions, p.sector, p.country,
         b.sector as to_sector, b.country as to_country,
         row_number() over (partition by t.payer order by t.amount desc, t.month, t.beneficiary, t.transactions) as size_rank
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
), quarters as (
  select payer, sector, date_trunc('quarter', month)::date as quarter,
         sum(amount) as amount,
         sum(transactions) as transactions,
         count(distinct beneficiary) as partners,
         sum(case when to_country = country then amount else 0 end) as domestic,
         sum(case when to_sector = sector then amount else 0 end) as own_sector,
         sum(amount) filter (where size_rank <= 10) as among_ten_largest,
         percentile_disc(0.5) within group (order by amount) as median
  from paid
  group by payer, sector, date_trunc('quarter', month)
  having sum(amount) > 1000
     and count(*) >= 3
     and sum(transactions) > 20
)
select payer, sector, quarter, amount, transactions, partners, median,
       case when domestic > amount / 2 then 'domestic' else 'foreign' end as kind,
       case when own_sector = 0 then 'none' when own_sector < amount / 4 then 'some' else 'much' end as in_own_sector,
       round(100 * amount / sum(amount) over (partition by payer), 1) as percent_of_payer,
       amount - lag(amount) over (partition by payer order by quarter) as change,
       coalesce(among_ten_largest, 0) as among_ten_largest
from quarters
order by amount desc, payer, quarter
limit 200
