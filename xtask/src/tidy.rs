//! The rules of CONTRIBUTING.md that a text search can check.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Directories and files that may hold `unsafe`, and why.
const UNSAFE_HOMES: &[(&str, &str)] = &[
    (
        "lbagent-ebpf/src/packet/",
        "packet pointers, checked against the end of the packet",
    ),
    (
        "lbagent-ebpf/src/maps.rs",
        "map values are shared with other CPUs",
    ),
    ("lbagent-ebpf/src/kernel.rs", "calls of BPF helpers"),
    ("lbagent-ebpf/src/cookie.rs", "calls of BPF helpers"),
    ("lbagent-ebpf/src/web/copy.rs", "calls of BPF helpers"),
    (
        "lbagent-ebpf/src/web/maps.rs",
        "map values are shared with other CPUs",
    ),
    (
        "lbagent-ebpf/src/apart.rs",
        "pointers between functions that the verifier checks apart",
    ),
    (
        "lbagent-ebpf/src/decap/packet.rs",
        "packet pointers of the decapsulating programs",
    ),
    (
        "lbagent-ebpf/src/decap/maps.rs",
        "map values of the decapsulating programs",
    ),
    (
        "lbagent-ebpf/src/bench/",
        "floor programs reach packet and maps without layers",
    ),
    ("lbagent-common/src/pod.rs", "plain-old-data marks"),
    (
        "lbagent-common/src/redirect/text.rs",
        "loads of eight bytes from wherever they are",
    ),
    (
        "lbagent-common/tests/abi.rs",
        "looks at the bytes of the types",
    ),
    (
        "lbagent/src/dataplane/",
        "mmapped map values and system calls",
    ),
    (
        "lbagent/src/allocator.rs",
        "options of the memory allocator, which is written in C",
    ),
    (
        "tests/src/netns.rs",
        "namespaces are entered by system call",
    ),
    ("tests/src/syscalls.rs", "system calls that nix lacks"),
];

/// Code lines that contain the word without being unsafe code: attributes that the kernel's
/// licence and entry points need.
const UNSAFE_ATTRIBUTE: &str = "#[unsafe(";

/// Files longer than the limit when the rule came, with the length they may not exceed.
const LONG_FILES: &[(&str, usize)] = &[];

/// The limit for all other files, in lines.
const FILE_LINES: usize = 400;

/// Large test modules have files of their own and may be longer.
const TEST_FILE_LINES: usize = 700;

/// The one place where tests may wait.
const POLL: &str = "tests/src/poll.rs";

/// One source file.
struct Source<'a> {
    /// Path from the workspace's root.
    path: &'a str,
    text: &'a str,
}

impl Source<'_> {
    /// Numbered lines without comments and without what string literals say.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(index, line)| (index + 1, code_of(line)))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
    }
}

/// Applies every rule to every source file.
pub fn run() -> Result<()> {
    let root = workspace::root();
    let mut files = Vec::new();
    for directory in fs::read_dir(root).context("can't list the workspace")? {
        let directory = directory.context("can't list the workspace")?.path();
        if directory.join("Cargo.toml").is_file() {
            collect(&directory, &mut files)?;
        }
    }
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        let path = file.strip_prefix(root).unwrap_or(file).to_string_lossy();
        let source = Source {
            path: &path,
            text: &text,
        };
        check(&source, &mut findings);
    }
    check_runbook(root, &mut findings)?;
    if findings.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n{}", findings.join("\n"))
}

fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry
            .with_context(|| format!("{}", directory.display()))?
            .path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check(source: &Source<'_>, findings: &mut Vec<String>) {
    check_unsafe(source, findings);
    check_words(source, findings);
    check_boundaries(source, findings);
    check_length(source, findings);
}

fn check_unsafe(source: &Source<'_>, findings: &mut Vec<String>) {
    if UNSAFE_HOMES
        .iter()
        .any(|(home, _)| source.path.starts_with(home))
    {
        return;
    }
    for (line, code) in source.code() {
        let code = code.replace(UNSAFE_ATTRIBUTE, "");
        if words(&code).any(|word| word == "unsafe") {
            findings.push(format!(
                "{}:{line}: unsafe outside its homes (xtask/src/tidy.rs lists them)",
                source.path
            ));
        }
    }
}

fn check_words(source: &Source<'_>, findings: &mut Vec<String>) {
    for (line, code) in source.code() {
        let at = format!("{}:{line}", source.path);
        for opening in ["#[allow(", "#![allow("] {
            if code.trim_start().starts_with(opening) {
                findings.push(format!(
                    "{at}: use #[expect(…, reason = \"…\")] instead of allow"
                ));
            }
        }
        if source.is_test() && source.path != POLL && code.contains("sleep(") {
            findings.push(format!(
                "{at}: poll for a condition (tests/src/poll.rs), never sleep"
            ));
        }
    }
    for (index, line) in source.text.lines().enumerate() {
        let Some((_, after)) = line.split_once("TODO") else {
            continue;
        };
        let comment = line.trim_start().starts_with("//");
        if comment && !after.starts_with("(#") {
            findings.push(format!("{}:{}: write TODO(#issue)", source.path, index + 1));
        }
    }
}

/// Architecture invariants: who may import what.
fn check_boundaries(source: &Source<'_>, findings: &mut Vec<String>) {
    let agent = source.path.starts_with("lbagent/src/");
    let dataplane = source.path.starts_with("lbagent/src/dataplane/");
    let plan = source.path.starts_with("lbagent/src/plan/");
    let mut in_tests = source.is_test();
    for (line, code) in source.code() {
        let at = format!("{}:{line}", source.path);
        if agent && !dataplane && words(&code).any(|word| word == "aya" || word == "rtnetlink") {
            findings.push(format!(
                "{at}: only lbagent/src/dataplane/ uses aya and netlink"
            ));
        }
        let impure = [
            "::now",
            "std::fs",
            "std::net::Tcp",
            "std::process",
            "tokio::",
        ];
        // A unit test may measure how long planning takes.
        in_tests |= code.contains("#[cfg(test)]");
        if plan && !in_tests && impure.iter().any(|word| code.contains(word)) {
            findings.push(format!("{at}: plan/ is pure: no clock, no I/O"));
        }
    }
}

fn check_length(source: &Source<'_>, findings: &mut Vec<String>) {
    let lines = source.text.lines().count();
    let ratchet = LONG_FILES.iter().find(|(path, _)| *path == source.path);
    let limit = match ratchet {
        Some((_, limit)) => *limit,
        None if source.is_test() => TEST_FILE_LINES,
        None => FILE_LINES,
    };
    if lines > limit {
        findings.push(format!(
            "{}: {lines} lines, the limit is {limit}: split it",
            source.path
        ));
    }
}

/// Every reason that a packet can end with has an entry in the runbook.
fn check_runbook(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let read = |path: &str| {
        fs::read_to_string(root.join(path)).with_context(|| format!("can't read {path}"))
    };
    let runbook = read("docs/operations.md")?;
    for path in [
        "lbagent-common/src/outcome.rs",
        "lbagent-common/src/decap.rs",
    ] {
        let outcomes = read(path)?;
        let labels: Vec<_> = outcomes.lines().filter_map(outcome_label).collect();
        if labels.is_empty() {
            findings.push(format!("{path}: tidy finds no outcome in it"));
        }
        for label in labels {
            if !runbook.contains(&format!("`{label}`")) {
                findings.push(format!(
                    "docs/operations.md: no entry for the outcome `{label}`"
                ));
            }
        }
    }
    Ok(())
}

/// The label in a line such as `ForwardTx = 0, Forwarded, "forward_tx";`.
fn outcome_label(line: &str) -> Option<&str> {
    let (name, rest) = line.trim().strip_suffix("\";")?.split_once(" = ")?;
    let (_, label) = rest.rsplit_once('"')?;
    name.chars()
        .all(|c| c.is_ascii_alphanumeric())
        .then_some(label)
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// A line up to its comment, its string literals emptied. Literals of several lines are taken for
/// code, which at worst asks for other words in them.
fn code_of(line: &str) -> String {
    let line = line.replace("'\"'", "''").replace("\\\"", "");
    let mut code = String::new();
    for (index, piece) in line.split('"').enumerate() {
        if index % 2 == 1 {
            code.push_str("\"\"");
            continue;
        }
        match piece.split_once("//") {
            Some((before, _comment)) => {
                code.push_str(before);
                break;
            }
            None => code.push_str(piece),
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(path: &str, text: &str, expected: &[&str]) {
        let mut findings = Vec::new();
        check(&Source { path, text }, &mut findings);
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, expected) in findings.iter().zip(expected) {
            assert!(finding.contains(expected), "{finding:?} lacks {expected:?}");
        }
    }

    #[test]
    fn unsafe_has_homes() {
        finds(
            "lbagent/src/config.rs",
            "unsafe { x() }",
            &["unsafe outside"],
        );
        finds("lbagent-ebpf/src/maps.rs", "unsafe { x() }", &[]);
        finds("lbagent/src/config.rs", "// unsafe, they say", &[]);
        finds(
            "lbagent/src/config.rs",
            "let x = (\"//\", \"unsafe\"); // unsafe",
            &[],
        );
        finds(
            "lbagent/src/config.rs",
            "f(\"\\\"\", '\"', unsafe { x() })",
            &["unsafe outside"],
        );
        finds("lbagent-ebpf/src/main.rs", "#[unsafe(no_mangle)]", &[]);
    }

    #[test]
    fn words_are_checked() {
        let attribute = ["#[", "allow(dead_code)]"].concat();
        finds(
            "lbagent/src/config.rs",
            &attribute,
            &["config.rs:1: use #[expect"],
        );
        let wait = ["sle", "ep(Duration::from_secs(1))"].concat();
        finds("tests/tests/traffic/drain.rs", &wait, &["poll for"]);
        finds("tests/src/poll.rs", &wait, &[]);
        finds("lbagent/src/reconcile.rs", &wait, &[]);
        let note = |rest: &str| ["// TO", "DO", rest].concat();
        finds("lbctl/src/main.rs", &note(": later"), &["TODO(#issue)"]);
        finds("lbctl/src/main.rs", &note("(#7): later"), &[]);
    }

    #[test]
    fn boundaries_hold() {
        finds(
            "lbagent/src/plan/drain.rs",
            "Instant::now()",
            &["plan/ is pure"],
        );
        finds(
            "lbagent/src/status.rs",
            "use aya::Ebpf;",
            &["only lbagent/src/dataplane/"],
        );
        finds("lbagent/src/dataplane/load.rs", "use aya::Ebpf;", &[]);
    }

    #[test]
    fn files_stay_short() {
        finds("lbctl/src/main.rs", &"\n".repeat(FILE_LINES), &[]);
        finds(
            "lbctl/src/main.rs",
            &"\n".repeat(FILE_LINES + 1),
            &["401 lines"],
        );
        finds("tests/tests/api/main.rs", &"\n".repeat(FILE_LINES + 1), &[]);
    }

    #[test]
    fn outcome_labels_are_found() {
        assert_eq!(
            outcome_label("    ForwardTx = 0, Forwarded, \"forward_tx\";"),
            Some("forward_tx")
        );
        assert_eq!(outcome_label("/// A fragment."), None);
        assert_eq!(outcome_label("let x = \"y\";"), None);
    }
}
