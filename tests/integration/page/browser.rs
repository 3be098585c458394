//! A headless Chromium, driven by chromedriver in WebDriver's protocol (W3C): plain HTTP with JSON.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::request;
use crate::harness::{adopt, cluster, eventually, free_port, release, watchdog};

const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Nothing but the page: no sandbox (which root cannot have), no word to anybody else.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
];

/// A browser with one window; dropping it ends it, and so does the watchdog when the test process is gone.
pub struct Browser {
    driver: Child,
    address: String,
    session: String,
    /// The browser's own process; 0 before there is one.
    pid: u32,
    folder: PathBuf,
}

impl Browser {
    /// `None` where there is no Chromium here, which it then says; where all tests have to run that is an error.
    pub fn start() -> Option<Self> {
        let program = PROGRAMS.iter().find_map(|name| in_path(name));
        let (Some(program), Some(driver)) = (program, in_path("chromedriver")) else {
            let why =
                "there is no chromium with chromedriver: apt-get install chromium chromium-driver";
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        };
        let port = free_port();
        let folder = cluster().folder.join(format!("browser-{port}"));
        fs::create_dir_all(&folder).expect("the browser's folder");
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            // All that it and the browser write goes with the run.
            .env("HOME", &folder)
            .env("TMPDIR", &folder)
            .env("XDG_CONFIG_HOME", &folder)
            .env("XDG_CACHE_HOME", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver");
        adopt(driver.id());
        let mut this = Self {
            driver,
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            pid: 0,
            folder,
        };
        this.open(&program);
        Some(this)
    }

    fn open(&mut self, program: &Path) {
        eventually("chromedriver answers", || {
            request(&self.address, "GET", "/status", &[], "").ok()
        });
        let profile = format!("--user-data-dir={}", self.folder.join("profile").display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": program, "args": arguments},
        }}});
        let opened = self.ask("POST", "/session", &wanted);
        let text = |name: &str| opened[name].as_str().expect("a text").to_owned();
        self.session = format!("/session/{}", text("sessionId"));
        let pid = opened["capabilities"]["goog:processID"].as_u64();
        self.pid = u32::try_from(pid.expect("the browser's process")).expect("a process id");
        adopt(self.pid);
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = request(&self.address, method, path, &[], &body).expect("chromedriver");
        assert_eq!(
            answer.status, 200,
            "{method} {path} {body}: {}",
            answer.body
        );
        let mut answer: Value = serde_json::from_str(&answer.body).expect("JSON");
        answer["value"].take()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open_page(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs the body of a function on the page; what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same, of something that is a text.
    pub fn text(&self, expression: &str) -> String {
        let value = self.run(&format!("return String({expression})"));
        value.as_str().expect("a text").to_owned()
    }

    /// Waits until an expression is true on the page; panics with what the page shows.
    pub fn wait_for(&self, expression: &str) {
        let deadline = Instant::now() + crate::harness::PATIENCE;
        while self.run(&format!("return Boolean({expression})")) != json!(true) {
            let shown = || self.text("document.body.innerText");
            assert!(
                Instant::now() < deadline,
                "never: {expression}\n{}",
                shown()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A window of this size, in this colour scheme: "light" or "dark".
    pub fn look(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.develop("Emulation.setDeviceMetricsOverride", &size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.develop("Emulation.setEmulatedMedia", &media);
    }

    fn develop(&self, command: &str, parameters: &Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", &body);
    }

    /// What the browser's console has said since it was last asked.
    pub fn console(&self) -> Vec<String> {
        let said = self.post("/se/log", &json!({"type": "browser"}));
        let lines = said.as_array().expect("a list").iter();
        lines.map(|line| line["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // It closes the browser. Whatever becomes of that, the process is ended below.
            request(&self.address, "DELETE", &self.session, &[], "").ok();
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
        release(self.driver.id());
        if self.pid != 0 {
            if Path::new(&format!("/proc/{}", self.pid)).exists() {
                watchdog::signal(self.pid, "KILL");
            }
            release(self.pid);
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.find(|file| file.is_file())
}
