//! The BPF object: which file, and whether it is for this agent. Nothing is loaded here.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use lbagent_common::{ABI_VERSION, OBJECT_SECTION, ObjectInfo};
use object::{Object as _, ObjectSection as _};

use super::LoadError;

static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbagent-ebpf"));

/// The object that was built with the agent; empty when there was none. For tests, which change it.
pub fn embedded_object() -> &'static [u8] {
    EMBEDDED
}

/// An object that this agent may load.
#[derive(Debug)]
pub(super) struct Object {
    /// The ELF file.
    pub(super) bytes: Cow<'static, [u8]>,
    /// Version of the lbagent that it belongs to.
    pub(super) version: String,
}

impl Object {
    /// Reads the file that the operator names, or takes what was built in, and checks that it is
    /// for this agent.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, LoadError> {
        match path {
            Some(path) => {
                let bytes = fs::read(path).map_err(|source| LoadError::Unreadable {
                    path: path.to_owned(),
                    source,
                })?;
                Self::check(Cow::Owned(bytes), path.display().to_string())
            }
            None if EMBEDDED.is_empty() => Err(LoadError::NoObject),
            None => Self::check(Cow::Borrowed(EMBEDDED), "the built-in object".to_owned()),
        }
    }

    fn check(bytes: Cow<'static, [u8]>, origin: String) -> Result<Self, LoadError> {
        let info = match identify(&bytes) {
            Ok(info) => info,
            Err(reason) => return Err(LoadError::NotAnObject { origin, reason }),
        };
        let version = info.version().to_owned();
        if info.abi_version() != ABI_VERSION {
            return Err(LoadError::ObjectAbi {
                origin,
                found: info.abi_version(),
                version,
            });
        }
        Ok(Self { bytes, version })
    }
}

/// What the object says about itself, or why it says nothing.
fn identify(bytes: &[u8]) -> Result<ObjectInfo, String> {
    let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
    let section = file
        .section_by_name(OBJECT_SECTION)
        .ok_or_else(|| format!("it has no section {OBJECT_SECTION:?} with its ABI version"))?;
    let content = section.data().map_err(|error| error.to_string())?;
    ObjectInfo::parse(content)
        .ok_or_else(|| format!("its section {OBJECT_SECTION:?} holds something else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_is_named() {
        let error = Object::read(Some(Path::new("/nonexistent/object"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the BPF object /nonexistent/object"
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let executable = fs::read(std::env::current_exe().unwrap()).unwrap();
        for (bytes, words) in [(b"ELF?".to_vec(), "x is not"), (executable, "no section")] {
            let error = Object::check(Cow::Owned(bytes), "x".to_owned()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
