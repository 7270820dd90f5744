//! A clean Debian and Rust are enough for the first two commands.

use adamant_tests::image::workspace;
use adamant_tests::tool;

fn first_use(suite: &str) {
    if !tool::root() {
        return;
    }
    let output = tool::output(tool::command(workspace().join("tests/first-use")).arg(suite));
    let said = tool::lossy(&output.stdout) + &tool::lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains(&format!("first use on {suite}: ok")),
        "{}\n{said}",
        output.status
    );
}

#[test]
#[ignore = "compiles everything in a clean Debian: tests/run --all"]
fn the_first_commands_work_on_a_clean_debian_12() {
    first_use("bookworm");
}

#[test]
#[ignore = "compiles everything in a clean Debian: tests/run --all"]
fn the_first_commands_work_on_a_clean_debian_13() {
    first_use("trixie");
}
