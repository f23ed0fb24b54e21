//! Profiles: named sets of connection options in a file. A profile only supplies defaults: an option or an environment variable always wins. It contains no
//! secret, only the paths of files.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Args, ValueEnum as _};
use serde::Deserialize;

use super::{Failure, Format};
use crate::files;

/// The longest file of profiles, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// The options that choose a profile.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ProfileArgs {
    /// Take the options of this profile where neither an option nor an environment variable says otherwise
    #[arg(long, env = "KEYVAULT_PROFILE", value_name = "NAME", global = true)]
    pub profile: Option<String>,
    /// TOML file with profiles. Default: $XDG_CONFIG_HOME/canton-keyvault/profiles.toml, or the same under ~/.config
    #[arg(long, env = "KEYVAULT_PROFILES", value_name = "FILE", global = true)]
    pub profiles: Option<PathBuf>,
}

/// One profile, as the file has it. Paths are relative to the folder of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    url: Option<Urls>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    output: Option<String>,
}

/// One URL, or several of which the first that answers is used.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Several(Vec<String>),
}

/// The defaults that a profile supplies, each by the environment variable of its option.
pub(super) type Defaults = Vec<(&'static str, OsString)>;

/// The defaults of the profile that the arguments name. `None` if they name none.
///
/// # Errors
/// [`Failure::Usage`] if the file cannot be read, has an unknown field, or has no such profile.
pub(super) fn chosen(matches: &ArgMatches) -> Result<Option<Defaults>, Failure> {
    let matches = innermost(matches);
    let Some(name) = value::<String>(matches, "profile") else { return Ok(None) };
    let path = match value::<PathBuf>(matches, "profiles") {
        Some(path) => path.clone(),
        None => usual_file(|name| std::env::var_os(name)).ok_or_else(|| {
            Failure::Usage("--profile: neither XDG_CONFIG_HOME nor HOME is set: name the file with --profiles FILE".into())
        })?,
    };
    let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("--profile {name}: {}: {what}", path.display()));
    let bytes = files::read(&path, LONGEST_FILE).map_err(|error| wrong(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(&"is not UTF-8"))?;
    let mut profiles: BTreeMap<String, Profile> = toml::from_str(text).map_err(|error| wrong(&error))?;
    let Some(profile) = profiles.remove(name) else {
        let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
        return Err(wrong(&format_args!(
            "has no such profile. It has: {}",
            if known.is_empty() { "none".into() } else { known.join(", ") }
        )));
    };
    profile.defaults(path.parent().unwrap_or_else(|| Path::new("."))).map(Some).map_err(|error| wrong(&error))
}

/// The output format of the arguments, for errors before the command is known.
pub(super) fn format(matches: &ArgMatches) -> Format {
    value::<Format>(innermost(matches), "output").copied().unwrap_or(Format::Text)
}

impl Profile {
    fn defaults(self, folder: &Path) -> Result<Defaults, String> {
        let Self { url, ca, cert, key, output } = self;
        if let Some(output) = &output {
            Format::from_str(output, false).map_err(|_| format!("output: {output} is not a format: write text or json"))?;
        }
        let url = url.map(|urls| match urls {
            Urls::One(url) => url,
            Urls::Several(urls) => urls.join(","),
        });
        let file = |path: PathBuf| folder.join(path).into_os_string();
        let all = [
            ("KEYVAULT_URL", url.map(OsString::from)),
            ("KEYVAULT_CA", ca.map(file)),
            ("KEYVAULT_CERT", cert.map(file)),
            ("KEYVAULT_KEY", key.map(file)),
            ("KEYVAULT_OUTPUT", output.map(OsString::from)),
        ];
        Ok(all.into_iter().filter_map(|(variable, value)| Some((variable, value?))).collect())
    }
}

/// The command with other defaults, also of its subcommands.
pub(super) fn with_defaults(command: clap::Command, defaults: &Defaults) -> clap::Command {
    let command = command.mut_args(|arg| {
        let of_arg = |(variable, _): &&(&str, OsString)| arg.get_env().is_some_and(|name| name == *variable);
        match defaults.iter().find(of_arg) {
            Some((_, value)) => arg.default_value(value.clone()),
            None => arg,
        }
    });
    command.mut_subcommands(|subcommand| with_defaults(subcommand, defaults))
}

/// `$XDG_CONFIG_HOME/canton-keyvault/profiles.toml`. As in the XDG specification, an empty or relative value counts as unset.
fn usual_file(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(config.join("canton-keyvault").join("profiles.toml"))
}

/// The arguments of the last subcommand. It has the global ones too.
fn innermost(mut matches: &ArgMatches) -> &ArgMatches {
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    matches
}

/// The value of an option that not every command has.
fn value<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> Option<&'a T> {
    matches.try_get_one(name).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_xdg_specification_says() {
        let of = |set: &[(&str, &str)]| usual_file(|name| set.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(*value)));
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(of(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]), path("/x/canton-keyvault/profiles.toml"));
        for unset in [&[("HOME", "/h")][..], &[("XDG_CONFIG_HOME", ""), ("HOME", "/h")], &[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")]] {
            assert_eq!(of(unset), path("/h/.config/canton-keyvault/profiles.toml"));
        }
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_profile_supplies_the_defaults_of_its_options() {
        let profile: Profile =
            toml::from_str("url = ['https://a:1', 'https://b:1']\nca = 'ca.pem'\nkey = '/k.key'\noutput = 'json'").unwrap();
        let text = |(variable, value): (&'static str, OsString)| (variable, value.into_string().unwrap());
        assert_eq!(
            profile.defaults(Path::new("/etc/p")).unwrap().into_iter().map(text).collect::<Vec<_>>(),
            [
                ("KEYVAULT_URL", "https://a:1,https://b:1".to_owned()),
                ("KEYVAULT_CA", "/etc/p/ca.pem".to_owned()),
                ("KEYVAULT_KEY", "/k.key".to_owned()),
                ("KEYVAULT_OUTPUT", "json".to_owned()),
            ]
        );
        assert!(Profile { output: Some("xml".into()), ..Profile::default() }.defaults(Path::new("/")).is_err());
        assert!(toml::from_str::<Profile>("password = 'x'").is_err());
    }
}
