//! The commands that our pages show do what the pages say.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Token, eventually, vacant};
use crate::part::{Files, Part, SECRET, START, program, rpc};

/// A command block and what is shown below it.
struct Block {
    line: usize,
    commands: String,
    shown: Option<String>,
}

/// The blocks of a page that are marked `sh`, each with the block behind it.
fn blocks(page: &str, shown: &[&str]) -> Vec<Block> {
    let (mut found, mut open): (Vec<Block>, Option<(&str, usize, String)>) = (Vec::new(), None);
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(mark)) => open = Some((mark, index + 2, String::new())),
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (Some((mark, line, text)), Some(_)) => {
                if *mark == "sh" {
                    found.push(Block { line: *line, commands: text.clone(), shown: None });
                } else if shown.contains(mark)
                    && let Some(block) = found.last_mut()
                {
                    block.shown.get_or_insert_with(|| text.clone());
                }
                open = None;
            }
            (None, None) => {}
        }
    }
    found
}

/// Whether a text is what is shown, in which `…` stands for anything within its line.
fn matches(text: &str, shown: &str) -> bool {
    let (text, shown): (Vec<&str>, Vec<&str>) = (text.trim_end().lines().collect(), shown.trim_end().lines().collect());
    text.len() == shown.len() && text.iter().zip(&shown).all(|(text, shown)| fits(text.trim_end(), shown.trim_end()))
}

fn fits(text: &str, shown: &str) -> bool {
    let Some((first, rest)) = shown.split_once('…') else { return text == shown };
    let Some(text) = text.strip_prefix(first) else { return false };
    if rest.is_empty() {
        return true;
    }
    let next = rest.split('…').next().unwrap_or_default();
    text.match_indices(next).any(|(at, _)| fits(&text[at..], rest))
}

/// One script of all blocks, which writes what each prints to a file of its own. Jobs end with the script.
fn script(blocks: &[Block]) -> String {
    let mut script = "set -uo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n".to_owned();
    for (index, block) in blocks.iter().enumerate() {
        let _ = writeln!(script, "exec > out.{index} 2>&1\nset -e\n{}set +e", block.commands);
    }
    script.push_str("touch done\n");
    script
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("is there")
}

#[test]
fn each_command_block_of_the_runbook_prints_what_it_shows() {
    let dir = tempfile::tempdir().expect("a directory");
    let places = [
        ("127.0.0.1:8087", vacant()),
        ("127.0.0.1:9087", vacant()),
        ("127.0.0.1:9088", vacant()),
        ("127.0.0.1:9000", vacant()),
    ];
    let moved =
        |text: String| places.iter().fold(text, |text, (shown, vacant)| text.replace(shown, &vacant.to_string()));
    let conf = dir.path().join("conf");
    fs::create_dir(&conf).expect("is made");
    let presets = ["policy-api-only.toml", "policy-manager-only.toml", "policy-hybrid.toml"];
    for name in ["sidecar.toml", "executor.toml", "policy.toml"].into_iter().chain(presets) {
        fs::write(conf.join(name), moved(page(&format!("conf/{name}")))).expect("is written");
    }
    let site = conf.join("emcp.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let password = runtime.block_on(async {
        mcp_sidecar::app::demo_site(&site, 0).await.expect("the demo site is made");
        mcp_sidecar::app::demo_password(&site).await.expect("is set")
    });
    let blocks = blocks(&moved(page("docs/OPERATIONS.md")), &["text"]);
    assert!(blocks.len() >= 20);
    each_prints_what_it_shows("docs/OPERATIONS.md", &blocks, dir.path(), &[("SITE_PASSWORD", &password)]);
}

/// Runs all blocks of a page, in order, in a directory.
fn each_prints_what_it_shows(page: &str, blocks: &[Block], dir: &Path, environment: &[(&str, &str)]) {
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("is made");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mcp-sidecar"), bin.join("mcp-sidecar")).expect("is linked");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new("bash")
        .args(["-c", &script(blocks)])
        .current_dir(dir)
        .env("SAPI_JWT_SECRET", SECRET)
        .envs(environment.iter().copied())
        .env("PATH", path)
        .stdin(Stdio::null())
        .spawn()
        .expect("bash runs");
    let status = eventually("the page ends", Duration::from_secs(240), || child.try_wait().expect("can be asked"));
    for (index, block) in blocks.iter().enumerate() {
        let Ok(printed) = fs::read_to_string(dir.join(format!("out.{index}"))) else {
            panic!("the block before line {} of {page} failed ({status})", block.line)
        };
        if let Some(shown) = &block.shown {
            assert!(matches(&printed, shown), "{page}:{}\nshown:\n{shown}\nprinted:\n{printed}", block.line);
        }
    }
    assert!(dir.join("done").exists(), "the last block of {page} failed ({status})");
}

/// Tasks as the page has them: 17 was denied when it ran, 18 waits.
#[test]
fn the_commands_for_tasks_print_what_dispatch_md_shows() {
    let files = Files::shipped();
    files.demo_site();
    let queue = "[queue_worker]\nurl = \"sqlite://queue.sqlite\"\nkey_env = \"QUEUE_KEY\"\n\
                 audit = { dir = \"runs\" }\n\n[database]";
    files.edit("executor.toml", "[database]", queue);
    files.edit("policy.toml", "\n[end]", "\n[queue]\ndriver = \"own\"\n\n[end]");
    // The commands look in conf/.
    std::os::unix::fs::symlink(".", files.path("conf")).expect("is linked");
    let key = ("QUEUE_KEY", "a-key-of-the-queue-0123456789abcdef");
    let mut executor = files.service("executor");
    executor.env(key.0, key.1);
    let _executor = Part::ready(executor);
    let proxy = Part::ready(files.service("proxy"));
    let token = Token::of("alice").sign();
    let dispatch = |tool: &str| {
        let params = json!({"name": tool, "arguments": {"model": "Category", "limit": 1}});
        let mut request = rpc("content", &token, "tools/call", &params);
        request.target.push_str("/dispatch");
        let request = request.header("Connection", "close");
        let answer = Client::connect(proxy.address("listening")).round_trip(&request);
        assert_eq!(answer.status, 202, "{}", answer.text());
    };
    for _ in 1..17 {
        dispatch("evo.content.search");
    }
    dispatch("evo.model.list");
    let mut worker = program();
    worker.args(["worker", "--once", "--set", "security.deny_tools=[\"evo.model.list\"]"]).current_dir(files.path(""));
    let worked = worker.env(key.0, key.1).output().expect("the binary runs");
    assert!(worked.status.success(), "{}", String::from_utf8_lossy(&worked.stderr));
    dispatch("evo.content.search");
    let blocks = blocks(&page("docs/DISPATCH.md"), &["text"]);
    assert!(!blocks.is_empty() && blocks.iter().all(|block| block.shown.is_some()));
    each_prints_what_it_shows("docs/DISPATCH.md", &blocks, &files.path(""), &[key]);
}

#[test]
fn the_readme_shows_what_a_newcomer_gets() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sidecar"));
    command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).current_dir(dir.path());
    let up = Part::ready(command);
    let said = |word: &str| {
        eventually("it is printed", START, || {
            up.output().lines().find_map(|line| line.strip_prefix(word).map(|rest| rest.trim().to_owned()))
        })
    };
    let (url, token) = (said("mcp "), said("token "));
    let readme = page("README.md").replace("http://127.0.0.1:8087/api/v1/mcp/content", &url);
    let calls: Vec<Block> =
        blocks(&readme, &["json"]).into_iter().filter(|block| block.commands.contains("curl")).collect();
    assert_eq!(calls.len(), 2, "one that is allowed and one that is denied");
    for block in &calls {
        let output =
            Command::new("bash").args(["-c", &block.commands]).env("TOKEN", &token).output().expect("bash runs");
        let printed = String::from_utf8(output.stdout).expect("text");
        let shown = block.shown.as_deref().expect("the answer is shown");
        assert!(matches(&printed, shown), "README.md:{}\nshown:\n{shown}\nprinted:\n{printed}", block.line);
    }
}
