use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[track_caller]
fn check(arguments: &[&str], line: &str) {
    let error = Cli::try_parse_from(arguments).expect_err("the command line is wrong");
    assert_eq!(usage_line(&error, arguments), line);
}

#[test]
fn usage_mistakes_are_one_line() {
    check(
        &["lbctl", "service", "crate"],
        "lbctl: unrecognized subcommand 'crate'; a similar subcommand exists: 'create'; \
         see `lbctl service --help`",
    );
    check(
        &["lbctl", "service", "create"],
        "lbctl: the following required arguments were not provided: <PORT>...; \
         see `lbctl service create --help`",
    );
    check(
        &["lbctl", "show", "--stat"],
        "lbctl: unexpected argument '--stat' found; a similar argument exists: '--stats'; \
         see `lbctl show --help`",
    );
    check(
        &["lbctl", "show", "-o", "toml"],
        "lbctl: invalid value 'toml' for '--output <FORMAT>' [possible values: table, wide, \
         json, yaml, kv, raw, quiet]; see `lbctl show --help`",
    );
    // Clap tells no usage with wrong values; options of every command may come before it.
    check(
        &[
            "lbctl",
            "-o",
            "wide",
            "svc",
            "policy",
            "web",
            "--slow-start",
            "soon",
        ],
        "lbctl: invalid value 'soon' for '--slow-start <TIME>': expected a duration such as 30s, \
         500ms, 5m or 1h; see `lbctl service policy --help`",
    );
    check(
        &["lbctl", "service"],
        "lbctl: a command is missing; see `lbctl service --help`",
    );
    check(
        &["lbctl"],
        "lbctl: a command is missing; see `lbctl --help`",
    );
}

/// The commands of a line as a shell would see them, without what is not lbctl's.
fn commands(line: &str) -> impl Iterator<Item = Vec<&str>> {
    let line = line.split(" #").next().unwrap_or(line);
    line.split([';', '|', '&', '>', '<'])
        .map(|command| command.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&"lbctl") && words.len() > 1)
}

#[track_caller]
fn check_examples(source: &str, lines: impl Iterator<Item = String>) -> usize {
    let mut count = 0;
    for line in lines {
        for words in commands(&line) {
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{source}: {line}: {error}");
            }
            count += 1;
        }
    }
    count
}

/// All commands with their help.
fn helps(command: clap::Command, into: &mut Vec<(String, String)>) {
    for sub in command.get_subcommands() {
        helps(sub.clone(), into);
    }
    let after = command.get_after_help().map(ToString::to_string);
    into.push((command.get_name().to_owned(), after.unwrap_or_default()));
}

#[test]
fn examples_can_be_typed() {
    let mut all = Vec::new();
    helps(Cli::command(), &mut all);
    let mut count = 0;
    for (name, help) in all {
        count += check_examples(&name, help.lines().map(str::to_owned));
    }
    assert!(count > 15, "{count}");
    let pages = [
        ("docs/lbctl.md", include_str!("../../docs/lbctl.md")),
        (
            "docs/operations.md",
            include_str!("../../docs/operations.md"),
        ),
        ("README.md", include_str!("../../README.md")),
    ];
    for (page, text) in pages {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# "));
        let count = check_examples(page, lines.map(str::to_owned));
        assert!(count > 5, "{page}: {count}");
    }
}

#[test]
fn help_is_short_and_has_the_commands_own_options_first() {
    let asked = Cli::try_parse_from(["lbctl", "instance", "stop", "--help"]);
    let help = asked.unwrap_err().to_string();
    let place = |word: &str| {
        help.find(word)
            .unwrap_or_else(|| panic!("no {word}: {help}"))
    };
    assert!(
        place("--drain-ms") < place("Options of every command:"),
        "{help}"
    );
    assert!(
        place("Options of every command:") < place("--endpoint"),
        "{help}"
    );
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(help.lines().count() < 45, "{help}");
}
