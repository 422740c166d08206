use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

const WEB: &str = "\
kind: ServiceGroup
name: web
services:
- 53:5353/udp
- 5432:5432/tcp
domains:
- a.example
";

#[track_caller]
fn check(options: &str, expected: Result<&str, &str>) {
    let line = ["edit", "web"].into_iter().chain(options.split(' '));
    let arguments = Line::parse_from(line).arguments;
    let found = changed(WEB, &arguments);
    assert_eq!(
        found,
        expected.map(str::to_owned).map_err(str::to_owned),
        "{options}"
    );
}

#[test]
fn options_change_the_document() {
    check(
        "--set soft_limit=5 --add services=1:1/tcp --del services=53",
        Ok(
            "kind: ServiceGroup\nname: web\nservices:\n- 5432:5432/tcp\n- 1:1/tcp\n\
            domains:\n- a.example\nsoft_limit: 5\n",
        ),
    );
    check(
        "--del services=5432:5432/tcp --set domains=b.example,c.example",
        Ok("kind: ServiceGroup\nname: web\nservices:\n- 53:5353/udp\n\
            domains:\n- b.example\n- c.example\n"),
    );
    check(
        "--set policy.forwarding_mode=dsr-l2 --set domains= --add policy.sources.allow=10.0.0.0/8",
        Ok(
            "kind: ServiceGroup\nname: web\nservices:\n- 53:5353/udp\n- 5432:5432/tcp\n\
            policy:\n  forwarding_mode: dsr-l2\n  sources:\n    allow:\n    - 10.0.0.0/8\n",
        ),
    );
    check(
        "--del services=54",
        Err("--del services=54: there is no such element"),
    );
    check("--add name=x", Err("'name' is no list; give it by --set"));
    check("--set name.x=1", Err("'name.x' is no member"));
}

#[test]
fn remarks_are_not_part_of_a_draft() {
    assert_eq!(
        without_remarks("#! lbctl: wrong\n# mine\nkind: x\n"),
        "# mine\nkind: x\n"
    );
}
