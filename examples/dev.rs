use pgbraid::{
    backend::{catalog, connector::Connector},
    planner::{self, Facts, Request},
    server::{control, probe},
};
use std::{path::Path, sync::Arc};
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let config = Arc::new(
        pgbraid::config::load(Path::new(&args[1]), &Default::default())
            .map_err(|_| "config")
            .unwrap(),
    );
    let loaded = catalog::load(&config, 1).await.unwrap();
    let connectors = Connector::all(&config);
    let mut conn = connectors[0].connect().await.unwrap();
    let (mut ok, mut bad, mut err) = (0, 0, 0);
    for f in &args[2..] {
        let raw = if f.ends_with(".sql") {
            std::fs::read_to_string(f).unwrap()
        } else {
            f.clone()
        };
        let text: String = raw
            .lines()
            .filter(|l| !l.starts_with("--"))
            .collect::<Vec<_>>()
            .join("\n");
        println!("## {}", f.rsplit('/').next().unwrap());
        let st = match pgbraid::sql::parse(&text) {
            Ok(v) => v,
            Err(e) => {
                println!("PARSE {e}");
                err += 1;
                continue;
            }
        };
        for s in st {
            let types = match control::describe(&mut conn, &s.text, &[], true).await {
                Ok(a) => a.parameter_types,
                Err(e) => {
                    println!("INVALID {e}");
                    err += 1;
                    continue;
                }
            };
            let mut facts = Facts::new();
            let mut n = 0;
            loop {
                n += 1;
                if n > 10 {
                    println!("LOOP");
                    break;
                }
                let r = Request {
                    sql: &s.text,
                    parameter_types: &types,
                    search_path: &loaded.catalog.search_path,
                    facts: &facts,
                };
                match planner::plan(&r, &loaded.catalog) {
                    Ok(p) => {
                        match p.explain(&s.text, 3) {
                            Ok(t) => {
                                ok += 1;
                                println!("{t}")
                            }
                            Err(e) => {
                                bad += 1;
                                println!("REFUSED {} [{}] {:?}", e.message, e.hint, e.location)
                            }
                        }
                        break;
                    }
                    Err(ps) => {
                        for p in ps {
                            match probe::answer(&mut conn, &p, &types, &loaded.catalog).await {
                                Ok(f) => {
                                    facts.insert(p, f);
                                }
                                Err(e) => {
                                    println!("PROBE FAILED {p:?} {e}");
                                    n = 10;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    println!("ok {ok} refused {bad} invalid {err}");
}
