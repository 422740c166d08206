//! Agents by name: `~/.config/lbctl/config.yaml`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CtlError, near_matches};

/// All of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profiles {
    /// The profile that is used when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    pub profiles: BTreeMap<String, Profile>,
}

/// How one agent is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// As `--endpoint` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Roots that the agent's certificate is checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The account that an operator acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The token itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// A token; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where the file is: below `$XDG_CONFIG_HOME`, else below `~/.config`.
pub fn path(given: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name| {
        given(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("lbctl/config.yaml"))
}

impl Profiles {
    /// Reads the file; one that is not there has no profiles.
    pub fn load(path: &Path) -> Result<Self, CtlError> {
        let shown = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(CtlError::Usage(format!("cannot read '{shown}': {error}"))),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let read: Self = serde_yaml_ng::from_str(&text)
            .map_err(|error| CtlError::Usage(format!("'{shown}': {error}")))?;
        if read
            .profiles
            .values()
            .any(|profile| profile.token.is_some())
        {
            check_private(path)?;
        }
        Ok(read)
    }

    /// Writes the file, which nobody else can read, all of it or nothing.
    pub fn save(&self, path: &Path) -> Result<(), CtlError> {
        let failed = |error: &dyn fmt::Display| {
            CtlError::Local(format!("cannot write '{}': {error}", path.display()))
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        let text = serde_yaml_ng::to_string(self).map_err(|error| failed(&error))?;
        // A temporary file has mode 600.
        let mut file =
            tempfile::NamedTempFile::new_in(directory).map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes())
            .map_err(|error| failed(&error))?;
        file.persist(path).map_err(|error| failed(&error.error))?;
        Ok(())
    }

    /// The profile of this name.
    pub fn named(&self, name: &str) -> Result<&Profile, CtlError> {
        self.profiles.get(name).ok_or_else(|| {
            let near = near_matches(name, self.profiles.keys().map(String::as_str));
            let near = near.first().map(|near| format!("; did you mean '{near}'?"));
            CtlError::Usage(format!(
                "there is no profile '{name}'{}; `lbctl profile ls` lists them",
                near.unwrap_or_default()
            ))
        })
    }
}

impl Profile {
    /// The token, from wherever the profile has it.
    pub fn token(&self) -> Result<Option<String>, CtlError> {
        if let Some(path) = &self.token_file {
            check_private(path)?;
            let text = fs::read_to_string(path).map_err(|error| {
                CtlError::Usage(format!(
                    "cannot read the token in '{}': {error}",
                    path.display()
                ))
            })?;
            return Ok(Some(text));
        }
        Ok(self.token.as_ref().map(|Secret(token)| token.clone()))
    }
}

/// A file with a token is its owner's alone.
fn check_private(path: &Path) -> Result<(), CtlError> {
    let shown = path.display();
    let mode = fs::metadata(path)
        .map_err(|error| CtlError::Usage(format!("cannot read '{shown}': {error}")))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(CtlError::Usage(format!(
        "'{shown}' holds a token and others can read it (mode {:o}); run `chmod 600 {shown}`",
        mode & 0o777
    )))
}

/// What an operator's environment for the cloud's own tools says: `UKC_METRO` and, only with it,
/// `UKC_TOKEN`.
pub fn of_metro(given: impl Fn(&str) -> Option<String>) -> Result<Option<Profile>, CtlError> {
    let Some(metro) = given("UKC_METRO").filter(|metro| !metro.is_empty()) else {
        return Ok(None);
    };
    if !metro.contains("://") {
        return Err(CtlError::Usage(format!(
            "UKC_METRO is '{metro}', which names a metro and no agent; set it to a URL, or name \
             the agent with --endpoint or LBCTL_ENDPOINT"
        )));
    }
    Ok(Some(Profile {
        endpoint: Some(metro),
        token: given("UKC_TOKEN")
            .filter(|token| !token.is_empty())
            .map(Secret),
        ..Profile::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_path(variables: &[(&str, &str)], expected: Option<&str>) {
        assert_eq!(path(environment(variables)), expected.map(PathBuf::from));
    }

    fn environment<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn where_the_file_is() {
        check_path(
            &[("HOME", "/root")],
            Some("/root/.config/lbctl/config.yaml"),
        );
        check_path(
            &[("HOME", "/root"), ("XDG_CONFIG_HOME", "/x")],
            Some("/x/lbctl/config.yaml"),
        );
        check_path(
            &[("HOME", "/root"), ("XDG_CONFIG_HOME", "x")],
            Some("/root/.config/lbctl/config.yaml"),
        );
        check_path(&[], None);
    }

    #[test]
    fn what_is_saved_is_read_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a/config.yaml");
        assert_eq!(Profiles::load(&file).unwrap(), Profiles::default());
        let profile = Profile {
            endpoint: Some("unix:/run/x".into()),
            token: Some(Secret("hidden".into())),
            ..Profile::default()
        };
        let profiles = Profiles {
            current: Some("a".into()),
            profiles: BTreeMap::from([("a".into(), profile)]),
        };
        profiles.save(&file).unwrap();
        assert_eq!(Profiles::load(&file).unwrap(), profiles);
        assert!(!format!("{profiles:?}").contains("hidden"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Profiles::load(&file).unwrap_err().to_string();
        assert!(error.contains("others can read it (mode 644)"), "{error}");
        assert!(!error.contains("hidden"), "{error}");
    }

    #[test]
    fn a_profiles_token_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "secret\n").unwrap();
        let profile = Profile {
            token_file: Some(file.clone()),
            ..Profile::default()
        };
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            profile
                .token()
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(profile.token().unwrap().as_deref(), Some("secret\n"));
    }

    #[test]
    fn names_that_nobody_has() {
        let profiles = Profiles {
            current: None,
            profiles: BTreeMap::from([("prod".into(), Profile::default())]),
        };
        assert_eq!(
            profiles.named("prdo").unwrap_err().to_string(),
            "there is no profile 'prdo'; did you mean 'prod'?; `lbctl profile ls` lists them"
        );
    }

    #[test]
    fn metros() {
        let found = |variables: &[(&str, &str)]| of_metro(environment(variables));
        assert_eq!(found(&[("UKC_TOKEN", "t")]).unwrap(), None);
        let profile = found(&[("UKC_METRO", "http://gw:7480/v1"), ("UKC_TOKEN", "t")]);
        let profile = profile.unwrap().unwrap();
        assert_eq!(profile.endpoint.as_deref(), Some("http://gw:7480/v1"));
        assert_eq!(profile.token().unwrap().as_deref(), Some("t"));
        assert!(found(&[("UKC_METRO", "fra0")]).is_err());
    }
}
