//! What is put into a checkout: a file under its own name, and the lines that make it live.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cli::make::text::{before, declared, keyword, listed, starts_a_path};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file and the last part of the name, such as first_child
    name: String,
    /// The checkout
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// A sort of thing that can be made.
pub(super) struct Sort {
    word: &'static str,
    /// Its room in the executor.
    room: &'static str,
    /// One that works; see `src/executor/tests.rs`.
    sample: &'static str,
    /// What names the sample: in this text, `sample` gives way to the name, `Sample` to the title.
    named: &'static [&'static str],
    /// Puts its line into registry.rs.
    registered: fn(&str, &str) -> Option<String>,
    /// Puts its row into docs/TOOLS.md.
    documented: Option<fn(&str, &str) -> Option<String>>,
    /// What is left to do, beside making it do what is wanted.
    left: &'static str,
}

pub(super) const TOOL: Sort = Sort {
    word: "tool",
    room: "content",
    sample: include_str!("../../executor/tests/sample.rs"),
    named: &["evo.content.sample", "Content Sample Tool"],
    registered: |text, name| before(text, "    models::", &format!("    content::{name}::TOOL,\n")),
    documented: Some(|text, name| {
        let row = format!("| `evo.content.{name}` | **id** | the first document below another one, or null |\n");
        before(text, "| `evo.model.", &row)
    }),
    left: "and tell those who hold the whole listing (src/executor/tests/protocol.rs, tests/it/mcp.rs, tests/it/tools.rs, tests/process/commands.rs, tests/databases/clients.rs, the number in docs/OPERATIONS.md)",
};

pub(super) const RESOURCE: Sort = Sort {
    word: "resource",
    room: "resources",
    sample: include_str!("../../executor/tests/sample_resource.rs"),
    named: &["\"evo://sample\"", "\"sample\"", "\"Sample\""],
    registered: |text, name| listed(text, "RESOURCES", &format!("resources::{name}::RESOURCE")),
    documented: None,
    left: "name its address in allow_resources of its server; and tell those who expect none (src/executor/tests/catalog.rs, tests/process/commands.rs)",
};

pub(super) const PROMPT: Sort = Sort {
    word: "prompt",
    room: "prompts",
    sample: include_str!("../../executor/tests/sample_prompt.rs"),
    named: &["evo.prompt.sample", "\"Sample\""],
    registered: |text, name| listed(text, "PROMPTS", &format!("prompts::{name}::PROMPT")),
    documented: None,
    left: "name it in allow_prompts of its server; and tell those who expect none (src/executor/tests/catalog.rs, tests/process/commands.rs)",
};

/// Writes it, all files or none.
pub(super) fn make(args: &Args, sort: &Sort) -> anyhow::Result<()> {
    let (name, word) = (&args.name, sort.word);
    let first = name.starts_with(|letter: char| letter.is_ascii_lowercase());
    if !first || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        bail!("{name:?} cannot be a {word}'s name: use a to z, digits and _, a letter first");
    }
    let room = args.dir.join("src/executor").join(sort.room);
    let (module, registry) = (room.join("mod.rs"), args.dir.join("src/executor/registry.rs"));
    let file = room.join(format!("{name}.rs"));
    let read = |path: &Path| {
        let hint = "is this a checkout of mcp-sidecar? --dir names one";
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}; {hint}", path.display()))
    };
    let modules = read(&module)?;
    if file.exists() || keyword(name) || starts_a_path(&modules, name) {
        bail!("the name {name:?} is taken");
    }
    let modules = declared(&modules, name).with_context(|| format!("no modules in {}", module.display()))?;
    let lines = (sort.registered)(&read(&registry)?, name)
        .with_context(|| format!("no place for a {word} in {}", registry.display()))?;
    let mut texts = vec![(file, rendered(sort, name)), (module, modules), (registry, lines)];
    if let Some(documented) = sort.documented {
        let guide = args.dir.join("docs/TOOLS.md");
        let rows = documented(&read(&guide)?, name)
            .with_context(|| format!("no place for a {word} in {}", guide.display()))?;
        texts.push((guide, rows));
    }
    for (path, text) in texts {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        say!("{}", path.display());
    }
    say!("next: cargo test --lib {name}; make it do what you want (docs/ADDING-A-TOOL.md);");
    say!("{}", sort.left);
    Ok(())
}

/// The sample under another name.
fn rendered(sort: &Sort, name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty()).map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    });
    let title = words.collect::<Vec<_>>().join(" ");
    sort.named.iter().fold(sort.sample.to_owned(), |text, named| {
        text.replace(named, &named.replace("sample", name).replace("Sample", &title))
    })
}
