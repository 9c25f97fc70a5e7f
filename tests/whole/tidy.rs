//! What the house style asks of the sources and no other tool checks.

use std::fs;
use std::path::{Path, PathBuf};

const LINE_CHARS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 600;
const FILE_BYTES_MAX: u64 = 1 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in a workspace")
}

/// Every file of the workspace but those that are built or belong to git.
fn files() -> Vec<PathBuf> {
    let (mut files, mut directories) = (Vec::new(), vec![root().to_path_buf()]);
    while let Some(directory) = directories.pop() {
        // What others remove meanwhile isn't there to be checked.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_ours = path.file_name().is_none_or(|name| name != "target" && name != ".git");
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() && is_ours => directories.push(path),
                Ok(metadata) if metadata.is_file() && is_ours => files.push(path),
                _ => {}
            }
        }
    }
    assert!(files.len() > 50, "the workspace was not found: {files:?}");
    files
}

/// The sources of one of these kinds, with their names from the root.
fn sources(extensions: &[&str]) -> Vec<(String, String)> {
    let files = files().into_iter().filter(|path| {
        path.extension().is_some_and(|given| extensions.iter().any(|wanted| given == *wanted))
    });
    files
        .filter_map(|path| {
            let name = path.strip_prefix(root()).expect("it lies below").display().to_string();
            Some((name, String::from_utf8(fs::read(&path).ok()?).expect("sources are UTF-8")))
        })
        .collect()
}

/// Where a line of the source has one of these marks.
fn lines_with<'a>(
    sources: &'a [(String, String)],
    is_wrong: impl Fn(&str) -> bool + 'a,
) -> Vec<String> {
    let lines = sources.iter().flat_map(|(name, text)| {
        text.lines().enumerate().map(move |(place, line)| (name, place + 1, line))
    });
    lines
        .filter(|(_, _, line)| is_wrong(line))
        .map(|(name, number, line)| format!("{name}:{number}: {line}"))
        .collect()
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn sources_are_ascii() {
    let sources = sources(&["rs", "toml", "sql", "sh"]);
    assert_none(&lines_with(&sources, |line| !line.is_ascii()));
}

#[test]
fn lines_are_short() {
    assert_none(&lines_with(&sources(&["rs"]), |line| line.chars().count() > LINE_CHARS_MAX));
}

#[test]
fn files_are_short() {
    let long = |(name, text): (String, String)| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{name}: {lines} lines"))
    };
    assert_none(&sources(&["rs"]).into_iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn modules_begin_with_what_they_do() {
    let silent = |(name, text): (String, String)| (!text.starts_with("//!")).then_some(name);
    assert_none(&sources(&["rs"]).into_iter().filter_map(silent).collect::<Vec<_>>());
}

/// The models replace what this module exports; an atomic from elsewhere would escape them.
#[test]
fn the_core_takes_its_atomics_from_one_module() {
    let mut sources = sources(&["rs"]);
    sources.retain(|(name, _)| {
        name.starts_with("crates/core/src/") && name != "crates/core/src/sync.rs"
    });
    assert!(sources.len() > 5, "the core was not found");
    assert_none(&lines_with(&sources, |line| line.contains("sync::atomic")));
}

#[test]
fn nothing_is_left_to_be_done() {
    // Put together here, so that this file doesn't find itself.
    let marks = [concat!("to", "do!("), concat!("db", "g!("), concat!("TO", "DO")];
    let sources = sources(&["rs", "toml", "sql", "sh"]);
    assert_none(&lines_with(&sources, |line| marks.iter().any(|mark| line.contains(mark))));
}

#[test]
fn no_file_is_large() {
    let large = |path: PathBuf| {
        let bytes = fs::metadata(&path).ok()?.len();
        (bytes > FILE_BYTES_MAX).then(|| format!("{}: {bytes} bytes", path.display()))
    };
    assert_none(&files().into_iter().filter_map(large).collect::<Vec<_>>());
}
