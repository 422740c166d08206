//! The systemd units, as far as they can be looked at where systemd does not run.

use std::fs;
use std::path::Path;
use std::process::Command;

use lbagent_tests::agent::Ended;

/// Most exposure that `systemd-analyze security` may find, in tenths of a point of ten.
const EXPOSURE: [(&str, &str); 2] = [("lbterm", "17"), ("lbagent", "52")];

#[test]
fn units_are_valid_and_as_hard_as_they_were() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    let directory = tempfile::tempdir().unwrap();
    for (name, exposure) in EXPOSURE {
        let text = fs::read_to_string(packaging.join(format!("{name}.service"))).unwrap();
        // A program that is not installed is the only thing that may be wrong here.
        let text = text.replace(&format!("/usr/bin/{name}"), "/bin/true");
        let unit = directory.path().join(format!("{name}.service"));
        fs::write(&unit, text).unwrap();
        let analyze = |arguments: &[&str]| {
            let mut analyze = Command::new("systemd-analyze");
            Ended::of(analyze.args(arguments).arg(&unit)).unwrap()
        };
        let ended = analyze(&["verify", "--man=no"]);
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{name}");
        let threshold = format!("--threshold={exposure}");
        let ended = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
        assert_eq!(ended.code, 0, "{name}: {ended:?}");
    }
}
