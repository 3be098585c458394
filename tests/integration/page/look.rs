//! The page in a browser.

use pgbraid::metrics::QueryKind;
use serde_json::json;

use super::browser::Browser;
use super::figures::Load;
use crate::harness::client::query;
use crate::harness::relay::Fault;
use crate::harness::{Config, Pgbraid, Relay, cluster, free_port, target_is_postgres};

/// A statement that would change the page if its text were HTML.
const MARKUP: &str = "select count(*), max(pg_sleep(60)::text) as \"<img src=x onerror=document.title='hit'><b id=injected>\" \
    from users where name <> 'secret_literal'";

const LANE: &str = "[...document.querySelectorAll('.lane')]";

struct Stage {
    pgbraid: Pgbraid,
    relay: Relay,
    url: String,
    browser: Browser,
}

/// Three shards, the second one by way of a relay; the page is open.
fn stage() -> Option<Stage> {
    if target_is_postgres() {
        return None;
    }
    let browser = Browser::start()?;
    let relay = Relay::start(cluster().shards[1]);
    let http = format!("127.0.0.1:{}", free_port());
    let config = Config::new(cluster()).with_port(1, relay.port).http(&http);
    let pgbraid = Pgbraid::start(config);
    let url = format!("http://{http}/");
    browser.look(1240, 900, "light");
    browser.open_page(&url);
    browser.wait_for(&format!("{LANE}.length === 3"));
    Some(Stage {
        pgbraid,
        relay,
        url,
        browser,
    })
}

/// The number at the beginning of what the page shows there.
fn number(browser: &Browser, selector: &str) -> f64 {
    let text = browser.text(&format!("document.querySelector('{selector}').textContent"));
    let digits = text.chars().filter(|c| *c != ',');
    let digits = digits.take_while(|c| c.is_ascii_digit() || *c == '.');
    let digits: String = digits.collect();
    digits.parse().unwrap_or(0.0)
}

#[test]
fn numbers_move_while_a_load_runs() {
    let Some(Stage {
        pgbraid, browser, ..
    }) = stage()
    else {
        return;
    };
    let load = Load::start(&pgbraid);
    browser.wait_for(&format!(
        "{LANE}.every(lane => parseFloat(lane.querySelector('.rows dd').textContent) > 0)"
    ));
    let all = ".tiles > div dd.small";
    let early = number(&browser, all);
    browser.wait_for(&format!(
        "parseFloat(document.querySelector('{all}').textContent.replace(/,/g, '')) > {early}"
    ));
    // Every kind of statement that there is has its line.
    let kinds = browser
        .text("[...document.querySelectorAll('#kinds th')].map(th => th.textContent).join()");
    let labels = QueryKind::ALL.map(|kind| kind.label().replace('_', " "));
    assert_eq!(kinds.split(',').count(), labels.len(), "{kinds}");
    for label in labels {
        assert!(
            kinds.split(',').any(|kind| kind == label),
            "{label}: {kinds}"
        );
    }
    for shown in [".lane .first dd", ".lane .last dd", ".lane .bytes dd"] {
        assert!(number(&browser, shown) > 0.0, "{shown}");
    }
    assert!(number(&browser, "#bars-said") > 0.0);
    browser
        .wait_for("[...document.querySelectorAll('#bars i')].some(bar => bar.clientHeight > 20)");
    drop(load);
    // Nothing happens any more, and the page says so.
    browser.wait_for(&format!(
        "{LANE}.every(lane => lane.querySelector('.rows dd').textContent === '0')"
    ));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn statements_and_refusals_are_text_without_literals() {
    let Some(Stage {
        pgbraid, browser, ..
    }) = stage()
    else {
        return;
    };
    let (mut running, mut refused) = (pgbraid.client(), pgbraid.client());
    refused.query("update users set name = 'secret_name'");
    refused.query("update users set name = 'secret_other_name'");
    running.send(&query(MARKUP)).expect("sent");
    browser.wait_for("document.querySelector('#running .plan .step')");
    browser.wait_for("document.querySelector('#refused .remedy')");
    let shown = browser.text("document.body.innerText");
    for part in [
        "<b id=injected>",
        "where name <> $2",
        "Remote on 3 of 3 shards",
        "update users set name = $1",
        "2 ×",
        "Remedy: ",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
    let found = browser.run("return document.querySelector('#injected, main img')");
    assert_eq!(found, json!(null));
    assert_eq!(browser.text("document.title"), "app · pgbraid");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_dead_shard_turns_red_and_comes_back() {
    let Some(Stage {
        pgbraid,
        relay,
        browser,
        ..
    }) = stage()
    else {
        return;
    };
    let (mut running, mut refused) = (pgbraid.client(), pgbraid.client());
    refused.query("update users set name = 'x'");
    running
        .send(&query("select pg_sleep(60) from users where id = 1"))
        .expect("sent");
    let second = format!("{LANE}[1]");
    browser.wait_for(&format!("{second}.className === 'lane alive'"));
    let color = format!("getComputedStyle({second}).backgroundColor");
    let healthy = browser.text(&color);
    relay.arm(Fault::Cut { after: 0 });
    browser.wait_for(&format!("{second}.className === 'lane dead'"));
    // Not by its colour alone: in words, with the reason, and in the tab's title.
    let said = browser.text(&format!("{second}.innerText"));
    assert!(
        said.contains("✕ unreachable") && said.contains("shard s2"),
        "{said}"
    );
    assert_eq!(
        browser.text("document.getElementById('state').textContent"),
        "✕ Not ready"
    );
    assert_eq!(browser.text("document.title"), "✕ app · pgbraid");
    let others = format!("[0, 2].every(n => {LANE}[n].className === 'lane alive')");
    assert_eq!(browser.text(&others), "true");
    for scheme in ["light", "dark"] {
        for width in [1240, 800, 360] {
            browser.look(width, 800, scheme);
            let page = "document.documentElement";
            let wide = browser.text(&format!("{page}.scrollWidth"));
            assert_eq!(wide, width.to_string(), "{scheme}: something is too wide");
            // Red is what there is more of than of green and blue.
            let dead = format!("({color}).match(/[0-9]+/g).map(Number)");
            let is_red = format!("(([r, g, b]) => r > g && r > b)({dead})");
            assert_eq!(
                browser.text(&is_red),
                "true",
                "{scheme}: {}",
                browser.text(&color)
            );
        }
        assert!(least_contrast(&browser) >= 4.5, "{scheme}");
    }
    browser.look(1240, 900, "light");
    relay.heal();
    browser.wait_for(&format!("{second}.className === 'lane alive'"));
    browser.wait_for("document.getElementById('state').textContent === '✓ Ready'");
    assert_eq!(browser.text(&color), healthy);
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// The least contrast between any text and what is behind it (WCAG 2.2, relative luminance).
fn least_contrast(browser: &Browser) -> f64 {
    let script = "
        const channels = (color) => color.match(/[0-9.]+/g).map(Number);
        const luminance = ([r, g, b]) => [r, g, b]
            .map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
        const behind = (element) => {
            const color = channels(getComputedStyle(element).backgroundColor);
            return color[3] === 0 && element.parentElement ? behind(element.parentElement) : color;
        };
        const texts = [...document.querySelectorAll('body *')].filter((element) =>
            element.checkVisibility() && [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
        return Math.min(...texts.map((element) => {
            const [a, b] = [channels(getComputedStyle(element).color), behind(element)].map(luminance);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }));";
    browser.run(script).as_f64().expect("a number")
}

#[test]
fn it_says_when_it_is_cut_off_and_goes_on_with_the_next_process() {
    let Some(Stage {
        mut pgbraid,
        browser,
        url,
        ..
    }) = stage()
    else {
        return;
    };
    let lost = "document.getElementById('lost')";
    assert_eq!(browser.text(&format!("{lost}.hidden")), "true");
    assert_eq!(browser.console(), Vec::<String>::new());
    pgbraid.signal("KILL");
    pgbraid.wait_for_end();
    browser.wait_for(&format!("!{lost}.hidden"));
    let said = browser.text(&format!("{lost}.innerText"));
    assert!(
        said.starts_with("Connection lost: pgbraid does not answer."),
        "{said}"
    );
    let _next = pgbraid.again();
    browser.wait_for(&format!("{lost}.hidden"));
    browser.wait_for("document.getElementById('state').textContent === '✓ Ready'");
    // While nobody sees it, it asks for nothing.
    browser.run(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });
         document.dispatchEvent(new Event('visibilitychange'));",
    );
    let asked =
        "performance.getEntriesByType('resource').filter(r => r.name.endsWith('live.json')).length";
    // What was under way has come by then.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = browser.text(asked);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(browser.text(asked), before, "{url}");
    browser.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'));");
    browser.wait_for(&format!("{asked} > {before}"));
    // Nor while it is told to wait.
    browser.run("document.getElementById('pause').click()");
    browser.wait_for("document.getElementById('fresh').textContent.startsWith('Paused at')");
    browser.run("document.getElementById('pause').click()");
    browser.wait_for("document.getElementById('fresh').textContent.startsWith('Live')");
}
