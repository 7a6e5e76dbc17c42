//! Help texts say what a command is for and show an example.

use crate::spinexr;
use std::path::Path;

#[test]
fn the_main_help_is_stable() {
    let output = spinexr(Path::new(".")).arg("--help").output().unwrap();
    assert!(output.status.success());
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn every_command_shows_an_example() {
    let commands = [
        vec!["demo"],
        vec!["synth"],
        vec!["data", "check"],
        vec!["data", "stats"],
        vec!["data", "split"],
        vec!["data", "deidentify"],
        vec!["data", "convert"],
        vec!["data", "prepare"],
        vec!["image"],
        vec!["train"],
        vec!["predict"],
        vec!["read-sr"],
        vec!["evaluate", "scores"],
        vec!["evaluate", "detections"],
        vec!["evaluate", "run"],
        vec!["evaluate", "compare"],
        vec!["evaluate", "drift"],
        vec!["model", "combine"],
        vec!["serve"],
        vec!["model", "card"],
        vec!["doctor"],
    ];
    for command in commands {
        let output = spinexr(Path::new(".")).args(&command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command:?}");
        assert!(
            help.contains("Example") && help.contains("spinexr "),
            "{command:?} shows no example:\n{help}"
        );
    }
}

#[test]
fn an_unknown_command_is_wrong_usage() {
    spinexr(Path::new(".")).arg("diagnose").assert().code(2);
}
