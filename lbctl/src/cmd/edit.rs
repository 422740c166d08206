//! `lbctl service edit` and `lbctl instance edit`: an object's document, changed by hand or by
//! options.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process;

use clap::Args;
use lbagent_api::{ItemError, Selector};
use serde_yaml_ng::Value;

use super::{Kind, advise_word, apply, retried};
use crate::apply::plan::completed;
use crate::apply::{Change, Present, State, execute, rules};
use crate::client::Client;
use crate::error::CtlError;
use crate::manifest::read;
use crate::output::Format;

/// Explains `--set`, `--add` and `--del`.
pub const HELP: &str = "\
Without --set, --add and --del the object's document is opened in $VISUAL, $EDITOR or vi. Members
are those of the document, which `get NAME -o yaml` shows:

  lbctl service edit web --set soft_limit=5 --add services=8443:8080/tls --del services=53
  lbctl instance edit web-1 --set policy.weight=50 --set state=stopped";

/// Arguments of `edit`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name or UUID
    #[arg(value_name = "NAME|UUID")]
    name: String,
    /// Give a member this value; an empty one is its default
    #[arg(long, value_name = "MEMBER=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Add this to a list
    #[arg(long, value_name = "MEMBER=VALUE", value_parser = assignment)]
    add: Vec<(String, String)>,
    /// Take this from a list; a port is found by its number, too
    #[arg(long, value_name = "MEMBER=VALUE", value_parser = assignment)]
    del: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((member, value)) if !member.is_empty() => Ok((member.to_owned(), value.to_owned())),
        _ => Err("expected MEMBER=VALUE".to_owned()),
    }
}

/// Runs the command.
pub fn run(
    kind: Kind,
    arguments: &Arguments,
    client: &Client,
    format: Format,
) -> Result<(), CtlError> {
    let fetched = || fetch(kind, &arguments.name, client);
    let Arguments { set, add, del, .. } = arguments;
    if set.is_empty() && add.is_empty() && del.is_empty() {
        return by_editor(&fetched()?, client, format);
    }
    // What the options say can be done to what somebody else made of it, too.
    retried(|| {
        let before = fetched()?;
        let text = changed(&before.manifest.to_yaml()?, arguments).map_err(CtlError::Usage)?;
        save(&before, &text, "the command line", client, format)
    })
}

fn fetch(kind: Kind, word: &str, client: &Client) -> Result<Present, CtlError> {
    let found = Present::fetch(kind, word, client)
        .map_err(|error| advise_word(error, kind, word, client))?;
    found.ok_or_else(|| {
        let item = ItemError::not_found(kind.noun(), &Selector::from_word(word));
        CtlError::Items(vec![item])
    })
}

/// Makes the agent have the changed document, if nobody else changed the object meanwhile.
fn save(
    before: &Present,
    text: &str,
    source: &str,
    client: &Client,
    format: Format,
) -> Result<(), CtlError> {
    let objects = read::text(source, text).map_err(CtlError::Files)?;
    let [object] = &objects[..] else {
        return Err(CtlError::Usage(
            "the text holds no document, or several".to_owned(),
        ));
    };
    let (was, now) = (&before.manifest, &object.manifest);
    if (now.kind(), now.name()) != (was.kind(), was.name()) {
        return Err(CtlError::Usage(format!(
            "the text describes {now} instead of {was}; kind and name cannot be changed"
        )));
    }
    let state = State::fetch(&rules::kinds(&objects), client)?;
    let mistakes = rules::check(&objects, Some(&state), &Default::default());
    if !mistakes.is_empty() {
        return Err(CtlError::Files(mistakes));
    }
    let change = Change {
        to: Some(completed(now.clone(), Some(was))),
        from: Some(before.clone()),
    };
    let done = execute::execute(std::slice::from_ref(&change), client);
    for (_, result) in done {
        result.map_err(|error| match error.is_changed() {
            true => CtlError::Outdated(was.to_string()),
            false => error,
        })?;
    }
    apply::report(std::iter::once(&change), format)
}

fn by_editor(before: &Present, client: &Client, format: Format) -> Result<(), CtlError> {
    let original = before.manifest.to_yaml()?;
    let local = |error: std::io::Error| CtlError::Local(format!("cannot write a draft: {error}"));
    let mut draft = tempfile::Builder::new()
        .prefix("lbctl-")
        .suffix(".yaml")
        .tempfile()
        .map_err(local)?;
    let mut shown = original.clone();
    draft.write_all(shown.as_bytes()).map_err(local)?;
    loop {
        open_editor(draft.path())?;
        let text = std::fs::read_to_string(draft.path())
            .map_err(|error| CtlError::Local(format!("cannot read the draft: {error}")))?;
        let document = without_remarks(&text);
        if document == original {
            tell!("lbctl: nothing was changed");
            return Ok(());
        }
        let error = match save(before, &document, "draft", client, format) {
            Ok(()) => return Ok(()),
            // Nobody corrects it, or that would not help: it stays for whoever wants it back.
            Err(error) if text == shown || !is_in_the_text(&error) => {
                let kept = draft.into_temp_path().keep();
                if let Ok(path) = kept {
                    tell!("lbctl: your text is kept in {}", path.display());
                }
                return Err(error);
            }
            Err(error) => error,
        };
        let remarks: String = error
            .lines()
            .iter()
            .map(|line| format!("{REMARK}{line}\n"))
            .collect();
        shown = format!("{remarks}{document}");
        std::fs::write(draft.path(), &shown).map_err(local)?;
    }
}

/// Whether another text could go better.
const fn is_in_the_text(error: &CtlError) -> bool {
    !matches!(
        error,
        CtlError::Unreachable { .. }
            | CtlError::Foreign { .. }
            | CtlError::Token { .. }
            | CtlError::Outdated(_)
    )
}

/// Begins the lines that tell what was wrong with a draft.
const REMARK: &str = "#! ";

fn without_remarks(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(REMARK));
    lines.map(|line| format!("{line}\n")).collect()
}

fn open_editor(path: &Path) -> Result<(), CtlError> {
    let given = |name| {
        env::var(name)
            .ok()
            .filter(|editor| !editor.trim().is_empty())
    };
    let editor = given("VISUAL")
        .or_else(|| given("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments.
    let status = process::Command::new("/bin/sh")
        .args(["-c", &format!("{editor} \"$1\""), "lbctl"])
        .arg(path)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CtlError::Local(format!(
            "the editor '{editor}' failed ({status}); nothing was changed"
        ))),
        Err(error) => Err(CtlError::Local(format!("cannot run '{editor}': {error}"))),
    }
}

/// The document with the options' changes.
fn changed(document: &str, arguments: &Arguments) -> Result<String, String> {
    let mut root: Value = serde_yaml_ng::from_str(document).map_err(|error| error.to_string())?;
    for (path, text) in &arguments.set {
        let value =
            serde_yaml_ng::from_str(text).map_err(|error| format!("--set {path}: {error}"))?;
        let (parent, key) = parent(&mut root, path)?;
        if text.is_empty() {
            parent.remove(key);
        } else if matches!(parent.get(key), Some(Value::Sequence(_))) {
            let words = text.split(',').map(Value::from).collect();
            parent.insert(key.into(), Value::Sequence(words));
        } else {
            parent.insert(key.into(), value);
        }
    }
    for (path, text) in &arguments.del {
        let list = list(&mut root, path)?;
        let before = list.len();
        list.retain(|item| !is_meant(item, text));
        if list.len() == before {
            return Err(format!("--del {path}={text}: there is no such element"));
        }
    }
    for (path, text) in &arguments.add {
        list(&mut root, path)?.push(text.as_str().into());
    }
    serde_yaml_ng::to_string(&root).map_err(|error| error.to_string())
}

/// Whether an element is named by `text`: itself, or a port by its number.
fn is_meant(item: &Value, text: &str) -> bool {
    item.as_str().is_some_and(|item| {
        item == text || item.split_once(':').is_some_and(|(port, _)| port == text)
    })
}

fn parent<'a, 'p>(
    root: &'a mut Value,
    path: &'p str,
) -> Result<(&'a mut serde_yaml_ng::Mapping, &'p str), String> {
    let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut value = root;
    for step in above.split('.').filter(|step| !step.is_empty()) {
        let mapping = value
            .as_mapping_mut()
            .ok_or_else(|| format!("'{path}' is no member"))?;
        value = mapping
            .entry(step.into())
            .or_insert_with(|| Value::Mapping(Default::default()));
    }
    let mapping = value
        .as_mapping_mut()
        .ok_or_else(|| format!("'{path}' is no member"))?;
    Ok((mapping, key))
}

fn list<'a>(root: &'a mut Value, path: &str) -> Result<&'a mut Vec<Value>, String> {
    let (parent, key) = parent(root, path)?;
    let value = parent
        .entry(key.into())
        .or_insert_with(|| Value::Sequence(Vec::new()));
    value
        .as_sequence_mut()
        .ok_or_else(|| format!("'{path}' is no list; give it by --set"))
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
