//! The commands that our pages show do what the pages say.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{eventually, vacant};
use crate::part::{Part, SECRET, START};

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
    let places = [("127.0.0.1:8087", vacant()), ("127.0.0.1:9087", vacant()), ("127.0.0.1:9088", vacant())];
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
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).expect("is made");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mcp-sidecar"), bin.join("mcp-sidecar")).expect("is linked");

    let blocks = blocks(&moved(page("docs/OPERATIONS.md")), &["text"]);
    assert!(blocks.len() >= 12);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new("bash")
        .args(["-c", &script(&blocks)])
        .current_dir(dir.path())
        .env("SAPI_JWT_SECRET", SECRET)
        .env("SITE_PASSWORD", password)
        .env("PATH", path)
        .stdin(Stdio::null())
        .spawn()
        .expect("bash runs");
    let status = eventually("the runbook ends", Duration::from_secs(240), || child.try_wait().expect("can be asked"));
    for (index, block) in blocks.iter().enumerate() {
        let Ok(printed) = fs::read_to_string(dir.path().join(format!("out.{index}"))) else {
            panic!("the block before line {} of docs/OPERATIONS.md failed ({status})", block.line)
        };
        if let Some(shown) = &block.shown {
            assert!(
                matches(&printed, shown),
                "docs/OPERATIONS.md:{}\nshown:\n{shown}\nprinted:\n{printed}",
                block.line
            );
        }
    }
    assert!(dir.path().join("done").exists(), "the last block failed ({status})");
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
