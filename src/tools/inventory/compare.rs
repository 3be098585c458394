//! Holds the shards' objects against each other. What most shards have is right (of two equal parties that of the first shard), but
//! nothing is ever dropped for being on a few shards only: it is created on the others.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::report::{Finding, quoted};
use super::Item;

/// In the order in which they are best created.
const ORDER: [&str; 25] = [
    "role",
    "extension",
    "schema",
    "enum",
    "type",
    "domain constraint",
    "sequence",
    "table",
    "column",
    "column order",
    "function",
    "identity",
    "default",
    "constraint",
    "index",
    "index state",
    "nullability",
    "foreign key",
    "validation",
    "view",
    "trigger",
    "trigger state",
    "row security",
    "policy",
    "privileges",
];

/// The kind of which the one with the longest definition is right: it only ever grows.
const GROWING: &str = "enum";

/// The kind that is also right where most shards have nothing.
const PRIVILEGES: &str = "privileges";

/// Kinds that may have any name: another one of the same definition will do.
const NAMELESS: [&str; 3] = ["index", "constraint", "foreign key"];

/// Kind, table and definition of an object whatever its name is.
type Unnamed<'a> = (&'a str, Option<&'a (String, String)>, &'a str);

/// Differences between the shards' objects; `shards` has each one's name and items. Of objects that belong to tables only those count
/// whose table is `shared`, which is to say on all shards.
pub fn compare(
    shards: &[(&str, &[Item])],
    shared: impl Fn(&(String, String)) -> bool,
) -> Vec<Finding> {
    let by_object: Vec<HashMap<&str, &Item>> = shards
        .iter()
        .map(|(_, items)| items.iter().map(|i| (i.object.as_str(), i)).collect())
        .collect();
    let unnamed: Vec<HashSet<Unnamed<'_>>> = shards
        .iter()
        .map(|(_, items)| {
            let nameless = items.iter().filter(|i| NAMELESS.contains(&&*i.kind));
            nameless
                .map(|i| (&*i.kind, i.table.as_ref(), &*i.definition))
                .collect()
        })
        .collect();
    let mut objects: BTreeMap<(usize, &str), ()> = BTreeMap::new();
    for item in shards.iter().flat_map(|(_, items)| items.iter()) {
        if item.table.as_ref().is_none_or(&shared) {
            objects.insert((place(&item.kind), &item.object), ());
        }
    }
    let mut findings = Vec::new();
    for (_, object) in objects.into_keys() {
        let copies: Vec<Option<&Item>> = by_object.iter().map(|s| s.get(object).copied()).collect();
        let Some((first, right)) = right_one(&copies) else {
            continue;
        };
        let nobody = right.kind == PRIVILEGES && !most_have_it(&copies, right);
        for (shard, copy) in copies.iter().enumerate() {
            let (name, model) = (shards[shard].0, shards[first].0);
            // What is missing is not missed where what it is part of is missing; a partition is created by itself.
            let parent = right.within.as_deref().filter(|_| right.kind != "table");
            let orphan = parent.is_some_and(|p| !by_object[shard].contains_key(p));
            let finding = match copy {
                Some(item) if nobody => Some(revoked(name, item)),
                None if nobody || orphan => None,
                Some(item) if item.definition == right.definition => None,
                Some(item) => differs(name, model, item, right),
                None => {
                    let elsewhere = (&*right.kind, right.table.as_ref(), &*right.definition);
                    (!unnamed[shard].contains(&elsewhere))
                        .then(|| missing(name, model, right))
                        .flatten()
                }
            };
            findings.extend(finding.map(|f| match &right.table {
                Some((schema, table)) => f.of_table(schema, table),
                None => f,
            }));
        }
    }
    findings
}

fn place(kind: &str) -> usize {
    ORDER.iter().position(|k| *k == kind).unwrap_or(ORDER.len())
}

/// The copy to go by, with its shard.
fn right_one<'a>(copies: &[Option<&'a Item>]) -> Option<(usize, &'a Item)> {
    let present = || {
        let numbered = copies.iter().enumerate();
        numbered.filter_map(|(shard, copy)| Some((shard, (*copy)?)))
    };
    let votes = |item: &Item| {
        let same = present().filter(|(_, other)| other.definition == item.definition);
        same.count()
    };
    let weight = |item: &Item| match item.kind == GROWING {
        true => item.definition.len(),
        false => votes(item),
    };
    // Of equals the last one wins with max_by_key.
    let mut all: Vec<_> = present().collect();
    all.reverse();
    all.into_iter().max_by_key(|(_, item)| weight(item))
}

/// Of two equal parties that of the first shard is right.
fn most_have_it(copies: &[Option<&Item>], right: &Item) -> bool {
    let without = copies.iter().filter(|c| c.is_none()).count();
    let with = copies.iter().flatten();
    let with = with.filter(|c| c.definition == right.definition).count();
    with > without || (with == without && copies.first().is_some_and(Option::is_some))
}

fn revoked(shard: &str, item: &Item) -> Finding {
    let message = format!("are {}, on the other shards none", quoted(&item.definition));
    Finding::new(shard, &item.object, message).mended_by(item.replace.iter().cloned())
}

fn missing(shard: &str, model: &str, right: &Item) -> Option<Finding> {
    // Properties come with their object.
    if right.create.is_empty() && right.within.is_some() {
        return None;
    }
    let finding = Finding::new(
        shard,
        &right.object,
        format!("is missing, shard {model} has it"),
    )
    .mended_by(right.create.iter().cloned());
    Some(match (right.create.is_empty(), &*right.kind) {
        (true, _) => finding.noted("it must be created by hand"),
        (_, "role") => finding.noted("give it the very password or verifier that it has elsewhere"),
        _ => finding,
    })
}

fn differs(shard: &str, model: &str, item: &Item, right: &Item) -> Option<Finding> {
    if right.kind == "column order" && item.form != right.form {
        return None;
    }
    let message = format!(
        "is {}, on shard {model} {}",
        quoted(&item.definition),
        quoted(&right.definition)
    );
    let message = match quoted(&item.definition) == quoted(&right.definition) {
        true => format!("is another one than on shard {model}"),
        false => message,
    };
    let anew: Vec<String> = right.replace.iter().chain(&right.create).cloned().collect();
    let statements = match (item.form == right.form, &*right.kind) {
        (_, PRIVILEGES) if is_part(&item.definition, &right.definition) => &right.create,
        (_, PRIVILEGES) => &anew,
        (true, _) => &right.replace,
        (false, _) => &right.recreate,
    };
    let statements = statements.iter().filter(|s| match &*right.kind {
        // Labels that are there already.
        "enum" => label_of(s).is_none_or(|label| !item.definition.contains(label)),
        _ => true,
    });
    let statements: Vec<String> = statements.cloned().collect();
    let finding = Finding::new(shard, &item.object, message);
    Some(match (statements.is_empty(), &*right.kind) {
        (true, "column order") => finding.noted(
            "no statement changes it: make the table anew, or name the columns wherever rows are read",
        ),
        (true, _) => finding.noted("no statement changes it in place: it must be made anew"),
        (false, _) => finding.mended_by(statements),
    })
}

/// True when every privilege of the one list is in the other.
fn is_part(few: &str, many: &str) -> bool {
    few.split(", ").all(|p| many.split(", ").any(|o| o == p))
}

/// `'b'` of `ALTER TYPE t ADD VALUE IF NOT EXISTS 'b' AFTER 'a'`.
fn label_of(statement: &str) -> Option<&str> {
    let (_, rest) = statement.split_once(" IF NOT EXISTS ")?;
    rest.rsplit_once(" AFTER ").map(|(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: &str, object: &str, definition: &str) -> Item {
        Item {
            kind: kind.into(),
            object: object.into(),
            table: None,
            within: None,
            definition: definition.into(),
            form: String::new(),
            create: vec![format!("create {object} {definition}")],
            replace: vec![format!("replace {object} {definition}")],
            recreate: vec![],
        }
    }

    fn found(shards: &[&[Item]]) -> Vec<String> {
        let names = ["s1", "s2", "s3"];
        let shards: Vec<(&str, &[Item])> = names.into_iter().zip(shards.iter().copied()).collect();
        let findings = compare(&shards, |_| true);
        let words = |f: &Finding| {
            let statements: Vec<&str> = f.mend.iter().map(|m| &*m.statement).collect();
            format!("{} {}", f.shard, statements.join("; "))
        };
        findings.iter().map(words).collect()
    }

    #[test]
    fn most_shards_are_right_and_of_two_the_first() {
        let (a, b) = ([item("function", "f", "1")], [item("function", "f", "2")]);
        assert_eq!(found(&[&b, &a, &a]), ["s1 replace f 1"]);
        assert_eq!(found(&[&b, &a]), ["s2 replace f 2"]);
        assert!(found(&[&a, &a, &a]).is_empty());
    }

    #[test]
    fn nothing_is_dropped_for_being_rare() {
        let a = [item("index", "i", "on t (a)")];
        assert_eq!(
            found(&[&[], &a, &[]]),
            ["s1 create i on t (a)", "s3 create i on t (a)"]
        );
    }

    #[test]
    fn indexes_may_have_other_names() {
        let (a, b) = (
            [item("index", "i", "on t (a)")],
            [item("index", "j", "on t (a)")],
        );
        assert!(found(&[&a, &b]).is_empty());
        // Functions may not.
        let (a, b) = ([item("function", "i", "1")], [item("function", "j", "1")]);
        assert_eq!(found(&[&a, &b]), ["s2 create i 1", "s1 create j 1"]);
    }

    #[test]
    fn parts_of_what_is_missing_are_not_missed() {
        let mut column = item("column", "c", "int");
        column.within = Some("t".into());
        let whole = [item("table", "t", "a table"), column];
        assert_eq!(found(&[&whole, &[]]), ["s2 create t a table"]);
    }

    #[test]
    fn privileges_go_by_what_most_shards_give() {
        let give = |list: &str| [item("privileges", "p", list)];
        let (all, some) = (give("INSERT, SELECT"), give("SELECT"));
        assert_eq!(found(&[&all, &all, &some]), ["s3 create p INSERT, SELECT"]);
        assert_eq!(found(&[&some, &[], &[]]), ["s1 replace p SELECT"]);
        assert_eq!(found(&[&all, &[], &all]), ["s2 create p INSERT, SELECT"]);
        assert_eq!(
            found(&[&some, &some, &all]),
            ["s3 replace p SELECT; create p SELECT"]
        );
        assert_eq!(found(&[&[], &all]), ["s2 replace p INSERT, SELECT"]);
    }

    #[test]
    fn enums_only_grow() {
        let grown = |labels: &str, add: &[&str]| {
            let mut item = item("enum", "e", labels);
            let adds = add.windows(2).map(|w| {
                format!(
                    "ALTER TYPE e ADD VALUE IF NOT EXISTS '{}' AFTER '{}'",
                    w[1], w[0]
                )
            });
            item.replace = adds.collect();
            [item]
        };
        let (short, long) = (
            grown("enum ('a', 'b')", &["a", "b"]),
            grown("enum ('a', 'b', 'c')", &["a", "b", "c"]),
        );
        assert_eq!(
            found(&[&short, &short, &long]),
            [
                "s1 ALTER TYPE e ADD VALUE IF NOT EXISTS 'c' AFTER 'b'",
                "s2 ALTER TYPE e ADD VALUE IF NOT EXISTS 'c' AFTER 'b'"
            ]
        );
    }
}
