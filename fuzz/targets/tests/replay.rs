//! The corpora, and what the fuzzer found once, go through the targets in every ordinary test run.
//!
//! `LEDGERLINE_SEED` repeats the random inputs of one run.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use ledgerline_fuzz_targets::{TARGETS, canary};

fn fuzz() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in fuzz/")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it is readable").path()).collect();
    paths.sort();
    paths
}

/// Names of the files or directories there, without what follows a dot.
fn names(directory: &Path) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries(directory).into_iter().map(stem).collect()
}

#[test]
fn every_corpus_holds() {
    for target in TARGETS {
        let inputs = entries(&fuzz().join("corpus").join(target.name));
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for input in inputs {
            let data = fs::read(&input).expect("it is readable");
            // The input's name is all that a failure would lack.
            println!("{}", input.display());
            (target.run)(&data);
        }
    }
}

#[test]
fn inputs_with_random_changes_hold() {
    let given = std::env::var("LEDGERLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("LEDGERLINE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for target in TARGETS {
        let inputs = entries(&fuzz().join("corpus").join(target.name));
        for _ in 0..CHANGED_INPUTS {
            let mut data = fs::read(&inputs[random.usize(..inputs.len())]).expect("readable");
            for _ in 0..random.usize(..8) {
                let byte = random.u8(..);
                let place = random.usize(..=data.len());
                match (random.u8(..3), place < data.len()) {
                    (0, true) => data[place] = byte,
                    (1, true) => drop(data.remove(place)),
                    _ => data.insert(place, byte),
                }
            }
            (target.run)(&data);
        }
    }
}

#[test]
fn targets_corpora_and_binaries_are_the_same() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let mut binaries = names(&fuzz().join("fuzz_targets"));
    assert!(binaries.remove("canary"));
    assert_eq!(binaries, targets);
}

#[test]
fn the_canary_is_there_to_be_found() {
    canary::run(b"bir");
    canary::run(b"a bird");
    catch_unwind(|| canary::run(b"birds")).expect_err("the canary must fail");
}

const CHANGED_INPUTS: usize = 100;
