//! Renamed options: a configuration with an old name is refused with an error that names the new one.

/// Section, old name and new name of each renamed option.
const RENAMED: &[(&str, &str, &str)] = &[
    ("cache", "residency", "max_age"),
    ("cache", "idle", "idle_timeout"),
    ("jobs", "retry_pause", "retry_backoff"),
    ("limits", "cold_opens_per_second", "cache_misses_per_second"),
    ("wrapper.limits", "breaker_pause", "breaker_cooldown"),
];

/// The first renamed option in a configuration: the option and the problem. `None` if there is none, or if the text is not TOML.
pub(super) fn renamed_option(text: &str) -> Option<(String, String)> {
    let root: toml::Table = toml::from_str(text).ok()?;
    RENAMED.iter().find_map(|(section, old, new)| {
        let mut table = &root;
        for part in section.split('.') {
            table = table.get(part)?.as_table()?;
        }
        table.contains_key(*old).then(|| (format!("[{section}] {old}"), format!("was renamed to {new}. Change the name")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_old_name_gives_an_error_that_names_the_new_one() {
        for (section, old, new) in RENAMED {
            let (option, problem) = renamed_option(&format!("[{section}]\n{old} = \"1s\"\n")).unwrap();
            assert_eq!(option, format!("[{section}] {old}"));
            assert!(problem.contains(new), "{problem}");
            assert_eq!(renamed_option(&format!("[{section}]\n{new} = \"1s\"\n")), None);
        }
    }
}
