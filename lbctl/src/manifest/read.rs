//! Files → objects, with the line of every mistake.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::{GroupManifest, InstanceManifest, Manifest, certificate, kind_word};
use crate::cmd::Kind;
use crate::error::{CtlError, near_matches};

/// Where an object begins, or a mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the command line names it, or `stdin`.
    pub file: String,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An object and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Where it begins.
    pub place: Place,
    /// What is asked for.
    pub manifest: Manifest,
}

/// Objects in the order of the files, or one line for each mistake.
pub type Outcome = Result<Vec<Object>, Vec<String>>;

/// Reads files, directories (their `.yaml`, `.yml`, `.toml` and `.json` files, by name) and `-`,
/// which is stdin. Everything is read before a mistake is told.
pub fn files(paths: &[PathBuf]) -> Result<Vec<Object>, CtlError> {
    let (mut objects, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        for file in expand(path)? {
            match text(&file.display().to_string(), &load(&file)?) {
                Ok(read) => objects.extend(read),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
    }
    mistakes.extend(twins(&objects));
    if mistakes.is_empty() && objects.is_empty() {
        // What wrote the file has failed, more likely than not.
        let files: Vec<String> = (paths.iter())
            .map(|path| format!("'{}'", path.display()))
            .collect();
        let text = format!("no object is described in {}", files.join(", "));
        return Err(CtlError::Usage(text));
    }
    if mistakes.is_empty() {
        Ok(objects)
    } else {
        Err(CtlError::Files(mistakes))
    }
}

fn expand(path: &Path) -> Result<Vec<PathBuf>, CtlError> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error| CtlError::Usage(format!("cannot read '{}': {error}", path.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "toml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(CtlError::Usage(format!(
            "'{}' has no .yaml, .yml, .toml or .json file",
            path.display()
        )));
    }
    Ok(files)
}

fn load(path: &Path) -> Result<String, CtlError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| CtlError::Usage(format!("cannot read '{}': {error}", path.display())))?;
    Ok(text)
}

/// Reads the text of one file.
pub fn text(file: &str, text: &str) -> Outcome {
    let file = if file == "-" { "stdin" } else { file };
    // JSON is YAML. Without a name, TOML is told by its first line.
    let is_toml = file.ends_with(".toml")
        || (file == "stdin" && first_line(text).is_some_and(|line| line.starts_with("[[")));
    if is_toml {
        toml(file, text)
    } else {
        yaml(file, text)
    }
}

fn first_line(text: &str) -> Option<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .into_iter()
        .find(|line| !line.is_empty() && !line.starts_with('#'))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default, rename = "ServiceGroup")]
    service_groups: Vec<Spanned<GroupManifest>>,
    #[serde(default, rename = "Instance")]
    instances: Vec<Spanned<InstanceManifest>>,
    #[serde(default, rename = "Certificate")]
    certificates: Vec<Spanned<certificate::Written>>,
}

fn toml(file: &str, text: &str) -> Outcome {
    let place = |offset: usize| Place {
        file: file.to_owned(),
        line: text[..offset.min(text.len())].matches('\n').count() + 1,
    };
    let read: TomlFile = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        vec![mistake(&place(start), error.message())]
    })?;
    let groups = read.service_groups.into_iter().map(|group| Object {
        place: place(group.span().start),
        manifest: Manifest::ServiceGroup(group.into_inner()),
    });
    let instances = read.instances.into_iter().map(|instance| Object {
        place: place(instance.span().start),
        manifest: Manifest::Instance(instance.into_inner()),
    });
    let (mut objects, mut mistakes) = (groups.chain(instances).collect::<Vec<_>>(), Vec::new());
    for written in read.certificates {
        let place = place(written.span().start);
        match written.into_inner().read(directory(file)) {
            Ok(read) => objects.push(Object {
                place,
                manifest: Manifest::Certificate(read),
            }),
            Err(text) => mistakes.push(mistake(&place, &text)),
        }
    }
    if mistakes.is_empty() {
        Ok(objects)
    } else {
        Err(mistakes)
    }
}

/// Where a file's other files are.
fn directory(file: &str) -> &Path {
    Path::new(file).parent().unwrap_or(Path::new(""))
}

/// Each document by itself, so that one with a mistake does not hide the next one's.
fn yaml(file: &str, text: &str) -> Outcome {
    let (mut objects, mut mistakes) = (Vec::new(), Vec::new());
    for (first, document) in documents(text) {
        if first_line(&document).is_none() {
            continue;
        }
        let place = |line: usize| Place {
            file: file.to_owned(),
            line,
        };
        match yaml_document(&document, directory(file)) {
            Ok(manifest) => {
                let blank = document.lines().take_while(|line| {
                    line.trim().is_empty() || line.trim_start().starts_with('#')
                });
                objects.push(Object {
                    place: place(first + blank.count()),
                    manifest,
                });
            }
            Err((line, text)) => mistakes.push(mistake(&place(first + line - 1), &text)),
        }
    }
    if mistakes.is_empty() {
        Ok(objects)
    } else {
        Err(mistakes)
    }
}

fn mistake(place: &Place, text: &str) -> String {
    format!("{place}: {}", text.replace('`', "'"))
}

/// The text between markers `---`, which YAML allows nowhere else at the begin of a line, with the
/// number of its first line.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let marker = line.strip_prefix("---");
        match marker.filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])) {
            Some(rest) => documents.push((index + 1, format!("{rest}\n"))),
            None => {
                if let Some((_, document)) = documents.last_mut() {
                    document.push_str(line);
                    document.push('\n');
                }
            }
        }
    }
    documents
}

#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
}

/// A document, or the line in it and what is wrong there.
fn yaml_document(document: &str, directory: &Path) -> Result<Manifest, (usize, String)> {
    let head: Head = parse(document)?;
    match head.kind.as_deref() {
        Some("ServiceGroup") => parse(document).map(Manifest::ServiceGroup),
        Some("Instance") => parse(document).map(Manifest::Instance),
        Some("Certificate") => {
            let written: certificate::Written = parse(document)?;
            let read = written.read(directory);
            read.map(Manifest::Certificate)
                .map_err(|text| (line_of_kind(document), text))
        }
        other => {
            let text = match other {
                Some(word) => {
                    let near = near_matches(word, Kind::ALL.map(kind_word));
                    let near = near.first().map(|near| format!("; did you mean '{near}'?"));
                    format!("kind '{word}' is unknown{}", near.unwrap_or_default())
                }
                None => "the document has no kind: 'kind: ServiceGroup', 'kind: Instance' or \
                         'kind: Certificate'"
                    .to_owned(),
            };
            Err((line_of_kind(document), text))
        }
    }
}

fn line_of_kind(document: &str) -> usize {
    let line = document.lines().position(|line| line.starts_with("kind:"));
    line.unwrap_or(0) + 1
}

fn parse<T: DeserializeOwned>(document: &str) -> Result<T, (usize, String)> {
    serde_yaml_ng::from_str(document).map_err(|error| {
        // Lines count from the file's begin, so those of the document would mislead.
        let words = error.to_string();
        let text = match regex_lite::Regex::new(" at line [0-9]+ column [0-9]+") {
            Ok(place) => place.replace_all(&words, "").into_owned(),
            Err(_) => words,
        };
        (error.location().map_or(1, |location| location.line()), text)
    })
}

/// Objects that are asked for twice.
fn twins(objects: &[Object]) -> Vec<String> {
    let mut seen: HashMap<(Kind, &str), &Place> = HashMap::new();
    let mut mistakes = Vec::new();
    for Object { place, manifest } in objects {
        if let Some(first) = seen.insert((manifest.kind(), manifest.name()), place) {
            mistakes.push(format!(
                "{place}: {manifest} is described at {first} already"
            ));
        }
    }
    mistakes
}
